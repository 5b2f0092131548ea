"""Progress for a person: a bar on a terminal, a line at every tenth elsewhere."""

import os
import sys

from elbo_lab import distributed


class Progress:
    """Shows how far a long task is, with a short text beside it, on standard error.

    Of several processes the first one shows it.
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
        """Leaves the terminal's last line as it is."""
        if self.bar is not None:
            self.bar.close()


class Interrupt:
    """Set by the first SIGINT or SIGTERM, so that a loop can end at a good place; a second one ends
    the process at once. One that any of several processes got counts for all: see `agreed`.
    """

    def __init__(self):
        import signal

        self.signal = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame) -> None:
        import signal

        del frame
        self.signal = number
        signal.signal(number, signal.SIG_DFL)
        # Not by print, which fails where the signal interrupts another print.
        os.write(2, b"\nStopping at the next checkpoint; once more ends at once.\n")

    def agreed(self) -> int:
        """The signal that any of the processes got, 0 if none; they all call it together."""
        self.signal = distributed.greatest(self.signal)
        return self.signal

    def status(self) -> int:
        """The exit status that shells expect of a process ended by this signal."""
        return 128 + self.signal
