"""Standard streams whose errors do not end a run, and warnings as plain sentences."""

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
      error: errno of the first error; 0 if there was none.
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
        # Redirect the descriptor to /dev/null, so that the buffer can be flushed.
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        self._stream.flush()


def guard() -> None:
    """Wraps the standard streams, prints warnings as sentences, and lets Ctrl-C raise
    KeyboardInterrupt. It may be called again, to wrap streams that were replaced since.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # Python started with the descriptor closed.
            stream = open(os.devnull, "w")
        if not isinstance(stream, Stream):
            setattr(sys, name, Stream(stream))
    if not isinstance(warnings.showwarning, _ShowWarning):
        warnings.showwarning = _ShowWarning(warnings.showwarning)
    if signal.getsignal(signal.SIGINT) is startup.interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def status(exit_status: int | None) -> int | None:
    """Returns a script's exit status, 1 instead of 0 or None if standard output was not written.

    A closed pipe (`| head`) is not an error.
    """
    sys.stdout.flush()
    if sys.stdout.error in (0, errno.EPIPE):
        return exit_status
    print(f"Error: standard output: {os.strerror(sys.stdout.error)}.", file=sys.stderr)
    return exit_status or 1


class _ShowWarning:
    """Replaces `warnings.showwarning`.

    Warnings of damage are printed as sentences. A compilation cache that cannot be written is
    reported once, not for every program.
    """

    def __init__(self, show_other: Any):
        self.show_other, self.cache_failed = show_other, False

    def __call__(self, message, category, *where: Any, **options: Any) -> None:
        text = str(message)
        if issubclass(category, DamageWarning):
            print(f"Warning: {text}.", file=sys.stderr)
        elif not text.startswith(_CACHE_ERROR):
            self.show_other(message, category, *where, **options)
        elif not self.cache_failed:
            self.cache_failed = True
            reason = text.partition("': ")[2].rpartition("] ")[2]  # after "OSError: [Errno 28] "
            print(
                f"Warning: compiled programs cannot be kept ({reason}); the next start is slower.",
                file=sys.stderr,
            )
