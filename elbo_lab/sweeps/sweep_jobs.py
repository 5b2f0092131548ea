"""Groups of a sweep in processes of their own, several at a time, and how far they all are."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from elbo_lab import configs
from elbo_lab.errors import UserError
from elbo_lab.runs.progress import Interrupt
from elbo_lab.sweeps import grid, sweep_folder

REPOSITORY = Path(__file__).resolve().parents[2]
# Seconds that a process is waited for after a signal: it ends after a compiled call.
PATIENCE = 120.0
# Share of a GPU's memory that all jobs together take.
MEMORY = 0.9


class Settings(NamedTuple):
    """What all processes are told."""

    platform: str | None
    cache: str
    cache_given: bool
    tensorboard: bool
    data_dir: str | None
    manual_dir: str | None
    placement: tuple[bool | None, ...]  # a `setup.Placement`


class Work(NamedTuple):
    """How long a group takes, in the units of `grid.training_work`."""

    training: float
    evaluation: float

    @property
    def total(self) -> float:
        """Work of both stages."""
        return self.training + self.evaluation


class Job:
    """A group's process."""

    def __init__(self, group: grid.Group, folder: Path, settings: Settings, cores, memory):
        self.group, self.stage, self.share, self.error = group, "starting", 0.0, ""
        self.earlier = 0.0  # share of the training that an earlier process has done
        self.started, self._unread = time.monotonic(), b""
        self.log = folder / sweep_folder.LOGS / f"{group.name}.txt"
        task = {
            "run": str(folder / sweep_folder.RUNS / group.name),
            "replicas": [configs.to_dict(replica) for replica in group.replicas],
            "cores": cores,
            **settings._asdict(),
        }
        try:
            with open(self.log, "ab") as log:
                self.process = _start(task, log, memory)
        except OSError as error:
            raise UserError(f"cannot write {self.log}: {error.strerror}.") from error

    def read(self) -> None:
        """Takes in what the process has said."""
        *lines, self._unread = (self._unread + os.read(self.fileno(), 1 << 16)).split(b"\n")
        for line in lines:
            message = json.loads(line)
            stage, self.share = message.get("stage", self.stage), message.get("share", self.share)
            if self.stage == "starting":
                self.earlier = self.share if stage == "training" else 1.0
            self.stage, self.error = stage, message.get("error", self.error)

    def fileno(self) -> int:
        """File descriptor of the worker's stdout."""
        return self.process.stdout.fileno()

    def done(self, work: Work) -> float:
        """How much of its work is done."""
        if self.stage == "training":
            return self.share * work.training
        return work.training + self.share * work.evaluation if self.stage == "evaluation" else 0.0

    def failure(self) -> str:
        """Why it failed, once it has ended; "" if it did not."""
        status = self.process.returncode
        if status == 0:
            return ""
        if self.error:
            return self.error
        if status < 0:
            hint = ", as the system does where memory runs out" if status == -9 else ""
            return f"its process was ended by signal {-status}{hint}; {self.log} has what it said"
        return f"its process ended with status {status}; {self.log} has what it said"


def run(
    groups: list[grid.Group],
    work: list[Work],
    folder: Path,
    settings: Settings,
    jobs: int,
    on_cpu: bool,
    interrupt: Interrupt,
    show: Callable[[float, float | None, str, int], None],
) -> dict[grid.Group, str]:
    """Trains and evaluates groups, `jobs` at a time, until all have ended or a signal comes.

    Args:
      groups: in the order in which they begin.
      work: of each.
      folder: the sweep's.
      settings: for every process.
      jobs: how many run at the same time.
      on_cpu: whether each gets a share of the cores for itself; else of the GPU's memory.
      interrupt: tells whether a signal has come. Processes then stop gently, and go on later.
      show: is told several times a second how much work is done, the seconds left, what is being
        done, and how many groups have ended.

    Returns:
      The reasons of those that failed.

    Raises:
      UserError: the disk refuses.
    """
    sizes = dict(zip(groups, work, strict=True))
    waiting, running, failed = list(groups), {}, {}  # running: slot -> Job
    finished = earlier = busy = 0.0
    shares = core_shares(jobs) if on_cpu else [None] * jobs
    memory = MEMORY / jobs if jobs > 1 and not on_cpu else None
    sweep_folder.make_folders(folder)
    try:
        while waiting or running:
            for slot in set(range(jobs)) - set(running) if not interrupt.signal else ():
                if waiting:
                    group = waiting.pop(0)
                    running[slot] = Job(group, folder, settings, shares[slot], memory)
            _listen(list(running.values()))
            now = time.monotonic()
            for slot, job in list(running.items()):
                if job.process.poll() is None:
                    continue
                job.read()
                job.process.stdin.close()
                job.process.stdout.close()
                del running[slot]
                finished += sizes[job.group].total
                earlier += job.earlier * sizes[job.group].training
                busy += now - job.started
                if job.failure() and not interrupt.signal:
                    failed[job.group] = job.failure()
            if interrupt.signal:
                stop(list(running.values()))
                break
            alive = [(sizes[job.group], job) for job in running.values()]
            done = finished + sum(job.done(size) for size, job in alive)
            new = done - earlier - sum(job.earlier * size.training for size, job in alive)
            rate = new / max(busy + sum(now - job.started for _, job in alive), 1e-9)
            left = [size.total - job.done(size) for size, job in alive]
            to_come = [sizes[group].total for group in waiting]
            seconds = grid.time_left(to_come, left, jobs, rate) if rate > 0 else None
            ended = len(groups) - len(waiting) - len(running)
            show(done, seconds, _state(groups, ended, failed, list(running.values())), ended)
    finally:
        for job in running.values():
            job.process.kill()
    return failed


def stop(jobs: list[Job]) -> None:
    """Asks processes to save and end, and waits until they have."""
    for job in jobs:
        job.process.terminate()
    deadline = time.monotonic() + PATIENCE
    for job in jobs:
        try:
            job.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            job.process.kill()


def platform(settings: Settings) -> str:
    """The platform that processes find.

    Raises:
      UserError: there is none of the wanted name, or the cache cannot be written.
    """
    task = {"run": None, "cores": None, **settings._asdict()}
    with _start(task, subprocess.PIPE, None) as process:
        said, printed = process.communicate()
    for line in said.splitlines():
        message = json.loads(line)
        if "error" in message:
            raise UserError(message["error"])
        return message["platform"]
    raise UserError(f"JAX cannot be started: {printed.decode().strip().splitlines()[-1]}")


def core_shares(jobs: int) -> list[list[int] | None]:
    """The cores of each of so many jobs: neighbours, and every core in use (None if the system
    cannot bind processes to cores). More jobs than cores share them evenly.
    """
    if jobs == 1 or not hasattr(os, "sched_getaffinity"):
        return [None] * jobs
    cores = sorted(os.sched_getaffinity(0))
    if jobs >= len(cores):
        return [[cores[i % len(cores)]] for i in range(jobs)]
    ends = [round(i * len(cores) / jobs) for i in range(jobs + 1)]
    return [cores[a:b] for a, b in zip(ends, ends[1:], strict=False)]


def default_jobs(on_cpu: bool, replicates: int) -> int:
    """On a CPU one job for each core, which is faster than cores that share small matrices; else
    one, whose replicates share the device.
    """
    if not on_cpu or not hasattr(os, "sched_getaffinity"):
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), replicates))


def _state(groups, ended: int, failed, running: list[Job]) -> str:
    words = f"{ended} of {len(groups)} groups done" + (f", {len(failed)} failed" if failed else "")
    doing = [
        f"{len(job.group.replicas)} x {job.group.name.rpartition('-')[0]} {job.stage} "
        f"{job.share:.0%}"
        for job in running
    ]
    return "; ".join([words, *doing])


def _start(task: dict[str, Any], log, memory: float | None) -> subprocess.Popen:
    # From any directory, which stays the one that the paths of flags are relative to.
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    if memory is not None:
        environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{memory:.3f}")
    process = subprocess.Popen(
        [sys.executable, "-m", "elbo_lab.sweeps.worker"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        # Ctrl-C is for the sweep alone, which tells its processes.
        start_new_session=True,
    )
    with contextlib.suppress(BrokenPipeError):  # it has ended already, and its status says how
        process.stdin.write(json.dumps(task).encode() + b"\n")
        process.stdin.flush()
    return process


def _listen(jobs: list[Job]) -> None:
    """Waits a moment for words of the processes."""
    if not jobs:
        return
    with selectors.DefaultSelector() as selector:
        for job in jobs:
            selector.register(job, selectors.EVENT_READ)
        for key, _ in selector.select(timeout=0.25):
            key.fileobj.read()
