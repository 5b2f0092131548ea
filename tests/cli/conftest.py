"""Tiny runs from the command line, started as a user would start them."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.cli import forking

REPOSITORY = Path(__file__).resolve().parents[2]
AT_START = REPOSITORY / "tests" / "cli" / "at_start"
SIZES = (
    "--hidden_dims=8",
    "--latent_dims=3",
    "--batch_size=10",
    "--epochs=20",
    "--learning_rate=0.01",
    "--eval_k=20",
    "--log_every=6",
    "--checkpoint_every=12",
)
# Runs a command with a limit on the size of the files that it writes, which acts like a full disk.
LIMITED = """\
import os, resource, sys
size = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
os.execv(sys.argv[2], sys.argv[2:])
"""
STEPS = 120  # 20 passes over 60 images in batches of 10
# Seconds after which a process counts as hanging. A run of five seconds can take minutes while a
# machine does much other work.
TIMEOUT = 600.0


class CommandLine:
    """Starts `python -m experiments.run`, or another module with the same flags, with tiny sizes
    and images of its own. All command lines share a compilation cache, and compile with few
    optimizations, in a third of the time.
    """

    def __init__(self, folder: Path, module: str = "experiments.run"):
        self.module, self.folder, self.data = module, folder, folder / "blobs.npz"
        # Each pytest worker has its own parent folder: JAX's writes to a cache are not atomic.
        self.cache = folder.parent / "cache"
        quick = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        self.environment = {**os.environ, **quick}
        np.savez(self.data, **images(np.random.default_rng(0)))

    def arguments(self, *flags: str) -> list[str]:
        """The arguments of the command line; `flags` come last."""
        common = (f"--dataset={self.data}", f"--compilation_cache_dir={self.cache}")
        return [*SIZES, *common, *flags]

    def start(self, *flags: str, largest_file: int | None = None, **options) -> subprocess.Popen:
        """Starts the script; `largest_file` limits the size of files, in bytes."""
        command = [sys.executable, "-m", self.module, *self.arguments(*flags)]
        if largest_file is not None:
            command = [sys.executable, "-c", LIMITED, str(largest_file), *command]
        return subprocess.Popen(
            command,
            **{
                "cwd": REPOSITORY,
                "env": self.environment,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                **options,
            },
        )

    def run(self, *flags: str, status: int = 0, **options) -> subprocess.CompletedProcess:
        """Runs to the end; checks the exit status, and that no traceback was printed."""
        with self.start(*flags, **options) as process:
            out, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == status, err
        assert "Traceback" not in err
        return subprocess.CompletedProcess(process.args, status, out, err)

    def refused(self, *flags: str, **options) -> str:
        """Runs a command that must end with status 2; returns the one sentence that it prints."""
        done = self.run(*flags, status=2, **options)
        return sentence_of(str(done.returncode), done.stdout, done.stderr)

    def outputs(
        self, commands: dict[str, Sequence[str]], folder: Path
    ) -> dict[str, tuple[str, str, str]]:
        """Runs commands by forks of one process; see `forking.run_all`.

        Args:
          commands: name -> flags.
          folder: for the output of the commands.
        """
        package, _, script = self.module.rpartition(".")
        filled = {name: [script, *self.arguments(*flags)] for name, flags in commands.items()}
        return forking.run_all(filled, folder, self.environment, package)

    def signalling(
        self, point: str, number: int, to: str | int = "itself", nth: int = 1
    ) -> dict[str, str]:
        """The environment of a process that sends a signal at a point of its work.

        The point is the moment before a process first opens a file, or makes a folder, whose path
        has a part that starts with `point`. Processes that the process starts come there too.

        Args:
          point: start of the name of a file or folder, such as "step_00000036" or "figures/".
          number: the signal.
          to: who gets it: "itself", "parent" (the sender then waits to be ended), or a process id.
          nth: the signal is sent by the n-th process that comes to the point, and by no other.
        """
        descriptor, tally = tempfile.mkstemp(dir=self.folder)
        os.close(descriptor)
        paths = [str(AT_START), *filter(None, [self.environment.get("PYTHONPATH")])]
        settings = {"AT": point, "NUMBER": int(number), "TO": to, "NTH": nth, "TALLY": tally}
        return {
            **self.environment,
            "PYTHONPATH": os.pathsep.join(paths),
            **{f"SIGNAL_{name}": str(value) for name, value in settings.items()},
        }

    def interrupted(
        self, point: str, number: int, *flags: str, **sender
    ) -> subprocess.CompletedProcess:
        """Runs a command in which a signal is sent at a point of its work; see `signalling`."""
        environment = self.signalling(point, number, **sender)
        with self.start(*flags, env=environment) as process:
            out, err = process.communicate(timeout=TIMEOUT)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def sentence_of(status: str, out: str, err: str) -> str:
    """Checks that a command was refused; returns the one sentence that it printed."""
    assert (status, out) == ("2", ""), err
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("Error: ")
    assert lines[0][-1] in ".)"
    return lines[0].removeprefix("Error: ")


def command(
    cli: CommandLine, script: str, *flags: str, status: int = 0
) -> subprocess.CompletedProcess:
    """Runs a script whose flags are not those of `experiments.run`; checks its exit status."""
    line = [sys.executable, "-m", f"experiments.{script}", *flags]
    line += [f"--compilation_cache_dir={cli.cache}"]
    options = {"capture_output": True, "text": True, "timeout": TIMEOUT}
    done = subprocess.run(line, cwd=REPOSITORY, env=cli.environment, **options)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def wait_until(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    """Waits for a condition. The process must be certain to last until then and beyond."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert process.poll() is None, "the process ended too soon"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def images(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """60 training and 23 test images of 8 x 8 grey blobs in two positions, with labels."""
    y_train, y_test = np.arange(60) % 2, np.arange(23) % 2
    row, column = np.mgrid[:8, :8]
    centre = np.array([2.0, 5.0])

    def draw(labels: np.ndarray) -> np.ndarray:
        middle = centre[labels] + 0.3 * rng.normal(size=len(labels))
        distance = (row - middle[:, None, None]) ** 2 + (column - middle[:, None, None]) ** 2
        return (255 * np.exp(-distance / 4)).astype(np.uint8)

    return {
        "x_train": draw(y_train),
        "x_test": draw(y_test),
        "y_train": y_train,
        "y_test": y_test,
    }


def outcome(path: Path) -> dict:
    """The part of a run that must be identical to the bit, however often the run was stopped."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line.pop("seconds") > 0
    summary = json.loads((path / "summary.json").read_text())
    results = [r for r in summary["results"] if r["unit"] not in ("s", "steps/s")]
    # A checkpoint's digest is that of its arrays' bytes: params, Adam's state, step and key.
    digests = {
        folder.name.partition(".")[0]: json.loads((folder / "manifest.json").read_text())["digest"]
        for folder in (path / "checkpoints").iterdir()
    }
    final = max(digests)
    return {
        "lines": lines,
        "evaluation": (path / "evaluation.npz").read_bytes(),
        "final": (final, digests[final]),
        "results": results,
        "figures": sorted(p.name for p in (path / "figures").iterdir()),
    }


def records(path: Path) -> int:
    """The number of lines of metrics."""
    file = path / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.fixture(scope="session")
def cli(tmp_path_factory) -> CommandLine:
    return CommandLine(tmp_path_factory.mktemp("cli"))


@pytest.fixture(scope="session")
def sweeping(tmp_path_factory) -> CommandLine:
    return CommandLine(tmp_path_factory.mktemp("sweeps"), "experiments.sweep")


@pytest.fixture(scope="session")
def studying(tmp_path_factory) -> CommandLine:
    return CommandLine(tmp_path_factory.mktemp("studies"), "experiments.study")


@pytest.fixture(scope="session")
def fresh(cli):
    """A run that was never stopped, with which others are compared: its folder and its output."""
    path = cli.folder / "fresh"
    return path, cli.run(f"--workdir={path}")


@pytest.fixture(scope="session")
def read():
    """Functions that read a run's folder, and the number of its steps."""
    return {"outcome": outcome, "records": records, "steps": STEPS}
