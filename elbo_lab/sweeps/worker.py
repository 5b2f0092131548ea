"""One group of a sweep, in a process of its own: started by experiments.sweep, not by a person.

Standard input brings one line of JSON, and its end the end of the sweep; standard output carries
lines of JSON, how far each stage is or why it failed; what is printed goes to standard error.
"""

import json
import os
import sys
import threading
import time
import traceback

from elbo_lab.cli import terminal
from elbo_lab.errors import UserError


class PipedProgress:
    """How far a stage is, as lines of JSON at most five times a second."""

    def __init__(self, name: str, total: int, start: int, unit: str):
        del unit
        self.name, self.total, self.done, self.last = name, total, start, 0.0
        self.to(start)

    def to(self, done: int, text: str = "") -> None:
        """Moves on to `done` of `total`."""
        del text
        self.done, now = done, time.monotonic()
        if now - self.last > 0.2 or done == self.total:
            say({"stage": self.name, "share": done / self.total})
            self.last = now

    def close(self) -> None:
        """Nothing is left open."""


def main() -> int:
    """Runs what standard input asks for. Returns the exit status."""
    task = json.loads(sys.stdin.readline())
    if task["run"]:
        threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    if task["cores"]:
        os.sched_setaffinity(0, task["cores"])
    try:
        return probe(task) if task["run"] is None else train(task)
    except UserError as error:
        say({"error": str(error)})
    except Exception as error:
        traceback.print_exc()
        text = str(error).strip() or "no message"
        say({"error": f"{type(error).__name__}: {text.splitlines()[0]}"})
    return 1


def probe(task: dict) -> int:
    """Says which platform there is, and whether the compilation cache can be written."""
    import jax

    from elbo_lab.devices import setup

    setup.set_up(task["platform"], 1, task["cache"], task["cache_given"])
    say({"platform": jax.devices()[0].platform})
    return 0


def train(task: dict) -> int:
    """Trains, evaluates and reports a group in its run directory."""
    from elbo_lab import configs, data
    from elbo_lab.devices import setup
    from elbo_lab.sweeps import grid

    replicas = [configs.from_dict(fields) for fields in task["replicas"]]
    config = grid.group(replicas).config
    setup.set_up(task["platform"], len(replicas), task["cache"], task["cache_given"])
    placement = setup.Placement(*task["placement"])
    in_file = bool(placement.stream)
    from elbo_lab.runs import derived

    dataset = data.load(config.dataset, task["data_dir"], task["manual_dir"], in_file, derived.load)
    from elbo_lab.runs import completing, stages

    try:
        completing.complete(
            config,
            task["run"],
            dataset,
            task["tensorboard"],
            replicas=replicas,
            progress=PipedProgress,
            placement=placement,
        )
    except stages.StoppedError as stopped:
        return stopped.status
    except stages.DivergedError as diverged:
        say({"error": str(diverged)})
        return 1
    return 0


def say(message: dict) -> None:
    """Sends a line to the sweep."""
    os.write(CHANNEL, json.dumps(message).encode() + b"\n")


def _end_with_the_sweep() -> None:
    # However the sweep ends, kill -9 included, its end of the pipe is closed. A run can be cut off
    # anywhere, and nothing may hold its directory when the sweep is started again.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    CHANNEL = os.dup(1)
    os.dup2(2, 1)
    terminal.guard()
    sys.exit(main())
