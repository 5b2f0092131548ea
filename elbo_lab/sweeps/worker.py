"""The process that trains one group of a sweep; `sweep_jobs` starts it.

Standard input: one line of JSON, the task. When it is closed, the sweep has ended, and the process
exits. Standard output: lines of JSON with the progress of each stage, or the error. Everything that
is printed goes to standard error.
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
    """Sends the progress of a stage at most five times a second; has the methods of `Progress`."""

    def __init__(self, name: str, total: int, start: int, unit: str):
        del unit
        self.name, self.total, self.done, self.last = name, total, start, 0.0
        self.to(start)

    def to(self, done: int, text: str = "") -> None:
        """Moves on to `done` of `total`."""
        del text
        self.done, now = done, time.monotonic()
        if now - self.last > 0.2 or done == self.total:
            send({"stage": self.name, "share": done / self.total})
            self.last = now

    def close(self) -> None:
        """Does nothing: there is no bar to close."""


def main() -> int:
    """Runs the task that standard input gives. Returns the exit status."""
    task = json.loads(sys.stdin.readline())
    if task["run"]:
        threading.Thread(target=_exit_with_sweep, daemon=True).start()
    if task["cores"]:
        os.sched_setaffinity(0, task["cores"])
    try:
        return probe(task) if task["run"] is None else train(task)
    except UserError as error:
        send({"error": str(error)})
    except Exception as error:
        traceback.print_exc()
        text = str(error).strip() or "no message"
        send({"error": f"{type(error).__name__}: {text.splitlines()[0]}"})
    return 1


def probe(task: dict) -> int:
    """Sends the platform that JAX uses. Raises a UserError if there is none, or no cache."""
    import jax

    from elbo_lab.devices import setup

    setup.set_up(task["platform"], 1, task["cache"], task["cache_given"])
    send({"platform": jax.devices()[0].platform})
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
    from elbo_lab.runs import derived  # imported late: JAX is configured first

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
        send({"error": str(diverged)})
        return 1
    return 0


def send(message: dict) -> None:
    """Sends one line of JSON to the sweep."""
    os.write(CHANNEL, json.dumps(message).encode() + b"\n")


def _exit_with_sweep() -> None:
    """Exits as soon as the sweep has ended."""
    # However the sweep ends, even by SIGKILL, its end of the pipe is closed. A run may be killed at
    # any point, but it must not hold the lock of its directory when the sweep is started again.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    # Messages go to the original standard output, everything that is printed to standard error.
    CHANNEL = os.dup(1)
    os.dup2(2, 1)
    terminal.guard()
    sys.exit(main())
