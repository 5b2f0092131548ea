"""Standard streams that cannot end a run, and warnings in plain words."""

import errno
import os
import signal
import sys
import warnings
from typing import Any

from elbo_lab.cli import startup
from elbo_lab.errors import DamageWarning

_CACHE_ERROR = "Error writing persistent compilation cache entry"


class Stream:
    """A text stream that drops what it cannot write.

    Attributes:
      error: the first error's number, 0 if there was none.
    """

    def __init__(self, stream: Any):
        self._stream, self.error = stream, 0

    def write(self, text: str) -> int:
        """Writes the text, or drops it. Returns its length."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Writes what is buffered, or drops it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self, error: OSError) -> None:
        self.error = self.error or error.errno or errno.EIO
        # From now on to nowhere, what is buffered too.
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        self._stream.flush()


def guard() -> None:
    """Makes the standard streams safe, shows warnings of damage in plain words, and lets Ctrl-C
    raise KeyboardInterrupt. Calling it again makes streams safe that were replaced since.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed when Python started
            stream = open(os.devnull, "w")
        if not isinstance(stream, Stream):
            setattr(sys, name, Stream(stream))
    if not isinstance(warnings.showwarning, _Shown):
        warnings.showwarning = _Shown(warnings.showwarning)
    if signal.getsignal(signal.SIGINT) is startup.interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def status(found: int | None) -> int | None:
    """A script's exit status: 1 in the place of 0 where standard output did not take all that was
    printed. A reader that had read enough (`| head`) is no failure.
    """
    sys.stdout.flush()
    if sys.stdout.error in (0, errno.EPIPE):
        return found
    print(f"Error: standard output: {os.strerror(sys.stdout.error)}.", file=sys.stderr)
    return found or 1


class _Shown:
    """Shows warnings: those of damage as sentences, and that the compilation cache cannot be
    written once, not for every program.
    """

    def __init__(self, others: Any):
        self.others, self.cache_failed = others, False

    def __call__(self, message, category, *where: Any, **options: Any) -> None:
        text = str(message)
        if issubclass(category, DamageWarning):
            print(f"Warning: {text}.", file=sys.stderr)
        elif not text.startswith(_CACHE_ERROR):
            self.others(message, category, *where, **options)
        elif not self.cache_failed:
            self.cache_failed = True
            reason = text.partition("': ")[2].rpartition("] ")[2]  # after "OSError: [Errno 28] "
            print(
                f"Warning: compiled programs cannot be kept ({reason}); the next start is slower.",
                file=sys.stderr,
            )
