"""Progress of long tasks (a bar on a terminal, elsewhere a line at every tenth), and interrupts."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time

from elbo_lab.devices import distributed


class Progress:
    """Shows the progress of a long task on standard error, with a short text beside it.

    With several processes, the first one shows it.
    """

    def __init__(self, name: str, total: int, start: int, unit: str):
        self.name, self.total, self.done, self.unit = name, total, start, unit
        self.bar, self.shown = None, distributed.is_first()
        if self.shown and sys.stderr.isatty():
            import tqdm

            self.bar = tqdm.tqdm(
                desc=name, total=total, initial=start, unit=unit, dynamic_ncols=True, smoothing=0.1
            )

    def to(self, done: int, text: str = "") -> None:
        """Moves on to `done` of `total`."""
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(done - self.done)
        elif self.shown and done * 10 // self.total > self.done * 10 // self.total:
            print(f"{self.name} {done}/{self.total} {self.unit} {text}".rstrip(), file=sys.stderr)
        self.done = done

    def close(self) -> None:
        """Ends the bar; its last line stays on the terminal."""
        if self.bar is not None:
            self.bar.close()


class GridProgress:
    """Shows the progress of many runs together, and an estimate of the time that is left."""

    def __init__(self, name: str, total: float, start: float):
        self.name, self.total, self.tenth = name, total, int(start / total * 10)
        self.bar, self.ended = None, 0
        if sys.stderr.isatty():
            import tqdm

            self.bar = tqdm.tqdm(
                total=1000,
                initial=int(1000 * start / total),
                dynamic_ncols=True,
                bar_format=name + " {percentage:3.0f}%|{bar:20}| {elapsed}{postfix}",
            )

    def to(self, done: float, left: float | None, text: str, ended: int) -> None:
        """Moves on to `done` of the total.

        Args:
          done: in the total's units.
          left: estimate of the seconds that are left; None if there is none yet.
          text: a description of the current work.
          ended: number of runs that have ended; without a terminal each prints a line.
        """
        remaining = f"about {duration(left)} left, " if left is not None else ""
        if self.bar is not None:
            self.bar.set_postfix_str(remaining + text, refresh=False)
            self.bar.update(int(1000 * done / self.total) - self.bar.n)
            return
        tenth = int(done / self.total * 10 + 1e-9)
        if tenth > self.tenth or ended > self.ended:
            print(f"{self.name} {done / self.total:.0%}, {remaining}{text}", file=sys.stderr)
        self.tenth, self.ended = tenth, ended

    def close(self) -> None:
        """Ends the bar; its last line stays on the terminal."""
        if self.bar is not None:
            self.bar.close()


def duration(seconds: float) -> str:
    """Seconds in words: "40 s", "12 min", "3 h 5 min", "2 d 3 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24} h"


# Seconds that a run may take to stop after a signal: a compiled call and a checkpoint.
GRACE = 120.0


class Interrupt:
    """A flag set by the first SIGINT or SIGTERM, so that a loop can stop at a checkpoint.

    A second signal ends the process at once. If the loop has not stopped within the grace period,
    the process is ended as well. With several processes, a signal to one counts for all: see
    `agreed`.

    Python runs signal handlers between two of its instructions, which a compilation or a program
    that computes or waits for memory can delay without limit. So a thread ends the process; the
    C-level handler wakes it through a socket.
    """

    def __init__(self, grace: float = GRACE):
        self.signal, self.grace = 0, grace
        # The C-level handler writes the signal's number to one end.
        self._wakes, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, daemon=True).start()

    def _note(self, number: int, frame) -> None:
        del frame
        self.signal = number

    def _watch(self) -> None:
        """Ends the process after a second signal, or when the grace period is over."""
        first = self._received(None)
        _write_line(
            f"Stopping at the next checkpoint, within {self.grace:.0f} s; "
            "a second signal stops at once."
        )
        second = self._received(self.grace)
        if second is None:
            _write_line(f"Not stopped within {self.grace:.0f} s: ended. The last checkpoint stays.")
        os._exit(128 + (second or first))

    def _received(self, seconds: float | None) -> int | None:
        """The next signal whose handler is `_note`; None if none comes within the seconds."""
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            self._wakes.settimeout(None if end is None else max(end - time.monotonic(), 1e-3))
            try:
                number = self._wakes.recv(1)[0]
            except TimeoutError:
                return None
            if signal.getsignal(number) == self._note:
                return number

    def agreed(self) -> int:
        """The signal that any of the processes got, 0 if none; all processes call it together."""
        common = distributed.max_over_processes(self.signal)
        # A signal that came during the exchange must stay noted for the next one.
        if common:
            self.signal = common
        return common

    def status(self) -> int:
        """The exit status by shell convention, 128 + the signal's number."""
        return 128 + self.signal


def _write_line(sentence: str) -> None:
    """Writes a line to standard error, if it is open.

    It does not use `print`, whose lock the main thread may hold when the signal arrives.
    """
    with contextlib.suppress(OSError):
        os.write(2, f"\n{sentence}\n".encode())
