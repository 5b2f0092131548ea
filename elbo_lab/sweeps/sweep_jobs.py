"""Runs the groups of a sweep in subprocesses, several at a time, and tracks their progress."""

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
# Seconds to wait for a process after a signal. It ends after its current compiled call.
PATIENCE = 120.0
# Fraction of a GPU's memory for all jobs together.
MEMORY = 0.9


class Settings(NamedTuple):
    """Settings that all processes share."""

    platform: str | None
    cache: str  # folder of the compilation cache
    cache_given: bool  # True if the user named it
    tensorboard: bool
    data_dir: str | None
    manual_dir: str | None
    placement: tuple[bool | None, ...]  # a `setup.Placement`


class Work(NamedTuple):
    """Work of a group, in the units of `grid.training_work`."""

    training: float
    evaluation: float

    @property
    def total(self) -> float:
        """Work of both stages together."""
        return self.training + self.evaluation


class Job:
    """The process of a group.

    Attributes:
      stage: "starting", "training" or "evaluation".
      share: fraction of the stage that is done.
      earlier: fraction of the training that an earlier process had done.
      error: message of the process about why it failed; "" if there was none.
      started: when it started, by `time.monotonic`.
      log: the file of its standard error.
    """

    def __init__(
        self,
        group: grid.Group,
        folder: Path,
        settings: Settings,
        cores: list[int] | None,
        memory: float | None,
    ):
        self.group = group
        self.stage, self.share, self.earlier, self.error = "starting", 0.0, 0.0, ""
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
        """Reads the messages that the process has sent."""
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
        """The part of its work that is done."""
        if self.stage == "training":
            return self.share * work.training
        if self.stage == "evaluation":
            return work.training + self.share * work.evaluation
        return 0.0

    def failure(self) -> str:
        """The reason why it failed, after it has ended; "" if it did not fail."""
        status = self.process.returncode
        if status == 0:
            return ""
        if self.error:
            return self.error
        if status < 0:
            hint = " (the system may have run out of memory)" if status == -9 else ""
            return f"its process was ended by signal {-status}{hint}; its output is in {self.log}"
        return f"its process ended with status {status}; its output is in {self.log}"


class _Progress:
    """The groups that wait, run and have ended, and how much of the work is done."""

    def __init__(self, groups: list[grid.Group], work: list[Work], jobs: int):
        self.work, self.jobs = dict(zip(groups, work, strict=True)), jobs
        self.waiting = list(groups)
        self.running: dict[int, Job] = {}  # by slot, 0..jobs-1
        self.failures: dict[grid.Group, str] = {}
        # Sums over groups that have ended: work, the part of it that earlier processes had done,
        # and seconds of their processes.
        self._ended_work = self._ended_earlier = self._ended_seconds = 0.0

    def start_waiting(self, start: Callable[[grid.Group, int], Job]) -> None:
        """Starts waiting groups in the free slots."""
        for slot in range(self.jobs):
            if slot not in self.running and self.waiting:
                self.running[slot] = start(self.waiting.pop(0), slot)

    def end_finished(self, keep_failures: bool) -> None:
        """Frees the slots of processes that have ended."""
        for slot, job in list(self.running.items()):
            if job.process.poll() is None:
                continue
            job.read()
            job.process.stdin.close()
            job.process.stdout.close()
            del self.running[slot]
            work = self.work[job.group]
            self._ended_work += work.total
            self._ended_earlier += job.earlier * work.training
            self._ended_seconds += time.monotonic() - job.started
            if keep_failures and job.failure():
                self.failures[job.group] = job.failure()

    def show(self, show: Callable[[float, float | None, str, int], None]) -> None:
        """Calls `show` as `run` describes."""
        now = time.monotonic()
        done, earlier, seconds = self._ended_work, self._ended_earlier, self._ended_seconds
        left = []
        for job in self.running.values():
            work = self.work[job.group]
            done += job.done(work)
            earlier += job.earlier * work.training
            seconds += now - job.started
            left.append(work.total - job.done(work))
        rate = (done - earlier) / max(seconds, 1e-9)
        waiting = [self.work[group].total for group in self.waiting]
        seconds_left = grid.time_left(waiting, left, self.jobs, rate) if rate > 0 else None
        ended = len(self.work) - len(self.waiting) - len(self.running)
        show(done, seconds_left, self._text(ended), ended)

    def _text(self, ended: int) -> str:
        counts = f"{ended} of {len(self.work)} groups done"
        if self.failures:
            counts += f", {len(self.failures)} failed"
        stages = [
            f"{len(job.group.replicas)} x {job.group.name.rpartition('-')[0]} {job.stage} "
            f"{job.share:.0%}"
            for job in self.running.values()
        ]
        return "; ".join([counts, *stages])


def run(
    groups: list[grid.Group],
    work: list[Work],
    folder: Path,
    settings: Settings,
    jobs: int,
    on_cpu: bool,
    interrupt: Interrupt,
    show: Callable[[float, float | None, str, int], None],
    one_core: bool = False,
) -> dict[grid.Group, str]:
    """Trains and evaluates groups, `jobs` at a time, until all have ended or a signal comes.

    Args:
      groups: in the order in which they start.
      work: of each group.
      folder: the sweep's.
      settings: for every process.
      jobs: number of groups that run at the same time.
      on_cpu: True to give each process its own share of the cores, False to give it a share of the
        GPU's memory.
      interrupt: has the signal that has come, if any. Processes then save and end, and can be
        resumed.
      show: called several times a second with the work that is done, the seconds left (None if
        unknown), a text about the groups, and the number of groups that have ended.
      one_core: True to bind each process to a single core, on a CPU.

    Returns:
      Group -> the reason why it failed.

    Raises:
      UserError: a file cannot be written.
    """
    cores = core_shares(jobs, one_core) if on_cpu else [None] * jobs
    memory = MEMORY / jobs if jobs > 1 and not on_cpu else None
    sweep_folder.make_folders(folder)
    progress = _Progress(groups, work, jobs)

    def start(group: grid.Group, slot: int) -> Job:
        return Job(group, folder, settings, cores[slot], memory)

    try:
        while progress.waiting or progress.running:
            if not interrupt.signal:
                progress.start_waiting(start)
            _listen(list(progress.running.values()))
            progress.end_finished(keep_failures=not interrupt.signal)
            if interrupt.signal:
                stop(list(progress.running.values()))
                break
            progress.show(show)
    finally:
        for job in progress.running.values():
            job.process.kill()
    return progress.failures


def stop(jobs: list[Job]) -> None:
    """Sends SIGTERM to processes, which then save, and waits until they have ended."""
    for job in jobs:
        job.process.terminate()
    deadline = time.monotonic() + PATIENCE
    for job in jobs:
        try:
            job.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            job.process.kill()


def platform(settings: Settings) -> str:
    """The platform that a process with these settings uses.

    Raises:
      UserError: the wanted platform is not available, or the cache cannot be written.
    """
    task = {"run": None, "cores": None, **settings._asdict()}
    with _start(task, subprocess.PIPE, None) as process:
        messages, output = process.communicate()
    if not messages:
        raise UserError(f"JAX cannot be started: {output.decode().strip().splitlines()[-1]}")
    message = json.loads(messages.splitlines()[0])
    if "error" in message:
        raise UserError(message["error"])
    return message["platform"]


def core_shares(jobs: int, one_core: bool = False) -> list[list[int] | None]:
    """Neighbouring cores for each job, such that every core is used; or one core for each job.

    If there are more jobs than cores, jobs share cores evenly. None for each job if a single job
    may use every core, or if the system cannot bind processes to cores.
    """
    if (jobs == 1 and not one_core) or not hasattr(os, "sched_getaffinity"):
        return [None] * jobs
    cores = sorted(os.sched_getaffinity(0))
    if one_core or jobs >= len(cores):
        return [[cores[i % len(cores)]] for i in range(jobs)]
    ends = [round(i * len(cores) / jobs) for i in range(jobs + 1)]
    return [cores[a:b] for a, b in zip(ends, ends[1:], strict=False)]


def default_jobs(on_cpu: bool, replicates: int) -> int:
    """The number of processes at a time: on a CPU one for each core, else one.

    On a CPU this is faster than one process whose cores share small matrix products. On a GPU the
    replicates of one process share the device.
    """
    if not on_cpu or not hasattr(os, "sched_getaffinity"):
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), replicates))


def _start(task: dict[str, Any], stderr, memory: float | None) -> subprocess.Popen:
    """Starts a worker with a task, and a fraction of the GPU's memory if not None."""
    # The working directory is kept, since paths of flags are relative to it.
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    if memory is not None:
        environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{memory:.3f}")
    process = subprocess.Popen(
        [sys.executable, "-m", "elbo_lab.sweeps.worker"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        # Ctrl-C reaches the sweep alone, which then stops its processes.
        start_new_session=True,
    )
    with contextlib.suppress(BrokenPipeError):  # it has ended; its exit status tells why
        process.stdin.write(json.dumps(task).encode() + b"\n")
        process.stdin.flush()
    return process


def _listen(jobs: list[Job]) -> None:
    """Waits up to 0.25 s for messages of the processes, and reads them."""
    if not jobs:
        return
    with selectors.DefaultSelector() as selector:
        for job in jobs:
            selector.register(job, selectors.EVENT_READ)
        for key, _ in selector.select(timeout=0.25):
            key.fileobj.read()
