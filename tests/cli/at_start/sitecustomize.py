"""Sends a signal when this process opens a certain file or makes a certain folder.

Python imports this module as it starts: `CommandLine.signalling` puts its folder on PYTHONPATH, and
its settings into the environment. A signal from within comes at the same point of the work on any
machine. A process that watches from outside may be descheduled until the work is over.
"""

import os
import signal
import sys

POINT, NUMBER, NTH, TALLY = (
    os.environ[f"SIGNAL_{key}"] for key in ("AT", "NUMBER", "NTH", "TALLY")
)
TO = os.environ["SIGNAL_TO"]
RECEIVER = {"itself": os.getpid(), "parent": os.getppid()}.get(TO) or int(TO)
was_here = False


def at_event(event: str, arguments: tuple) -> None:
    """Sends the signal at the first event of this process that names the point."""
    global was_here
    if was_here or event not in ("open", "os.mkdir") or f"/{POINT}" not in str(arguments[0]):
        return
    was_here = True
    if count_process() != int(NTH):
        return
    os.kill(RECEIVER, int(NUMBER))
    while TO == "parent":  # which ends this process, before it has done more
        signal.pause()


def count_process() -> int:
    """The number of processes that have come to the point, this one included."""
    tally = os.open(TALLY, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(tally, b"x")
        return os.lseek(tally, 0, os.SEEK_CUR)
    finally:
        os.close(tally)


sys.addaudithook(at_event)
