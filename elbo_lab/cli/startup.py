"""What a script does before its own imports, which take seconds: it must import nothing large.

Ctrl-C ends a script in that time with a word, and not with a traceback of the imports;
`terminal.guard` takes over from there.
"""

import contextlib
import os
import signal
import sys


def prepare() -> None:
    """Opens closed standard files and handles SIGINT, in a process of `python -m` alone."""
    # What Python calls a module while `python -m` looks for it: other programs keep what they have.
    if sys.argv[0] == "-m":
        _open_standard_files()
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, interrupted)


def interrupted(number: int, frame) -> None:
    """Ends the process; the handler of SIGINT during the imports."""
    del frame
    with contextlib.suppress(OSError):
        os.write(2, b"Interrupted.\n")
    os._exit(128 + number)


def _open_standard_files() -> None:
    """Opens those of standard input, output and error that are closed: a file of ours would get
    their number, and what libraries print would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
