"""One line of progress on standard error: how far, how fast, how long still.

No library's, because none of those tried (click 8.5.1, tqdm 4.70.1, rich 15.0.0) does all of this:
- nothing at all in the first second: click and rich draw on a terminal at once;
- in a log, a whole line every ten seconds: click writes its label and nothing more, rich one line
  at the end, tqdm one line that it rewrites with carriage returns;
- without standard error, silence: click's line goes to standard output;
- standard error that is full ends no work: all three raise OSError.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from ..shown import duration, quantity

DELAY = 1.0  # seconds before the first line: what is quick stays quiet
INTERVAL_TERMINAL = 0.1
INTERVAL_LOG = 10.0  # where standard error is a file: whole lines, few of them


class Progress:
    """A context manager; `advance(n)` after each piece of work.

    label   what is going on, e.g. "copying"
    total   amount of work, in `unit`; 0 where it is not known
    unit    "B" for bytes (shown as MB, GB), else a plural noun such as "tokens"

    Rewrites its line on a terminal, adds a line every ten seconds elsewhere. Silent where there
    is no standard error (a program without a console), and from when it cannot be written.
    """

    def __init__(
        self, label: str, total: int, unit: str = "B", stream: TextIO | None = None
    ) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.stream: TextIO | None = sys.stderr if stream is None else stream
        self.is_terminal = False
        with self._silent_if_it_fails():
            self.is_terminal = self.stream is not None and self.stream.isatty()
        self.done = 0
        self.start = time.monotonic()
        self.next = self.start + DELAY
        self.width = 0  # of the line on the terminal

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def advance(self, count: int) -> None:
        """`count` more units are done; cheap enough to call thousands of times a second."""
        self.done += count
        self._show_if_due()

    def relabel(self, label: str) -> None:
        """Say what goes on from here; shown at once if progress is shown at all."""
        self.label = label
        if self.width:
            self.next = 0.0
        self._show_if_due()

    def _show_if_due(self) -> None:
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + (INTERVAL_TERMINAL if self.is_terminal else INTERVAL_LOG)
        text = self.text(now - self.start)
        if self.is_terminal:
            self._write("\r" + text.ljust(self.width))
            self.width = len(text)
        else:
            self._write(text + "\n")

    def _write(self, text: str) -> None:
        if self.stream is None:
            return
        with self._silent_if_it_fails():
            self.stream.write(text)
            self.stream.flush()

    @contextlib.contextmanager
    def _silent_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # full, gone; closed, or of an encoding that lacks it
            self.stream = None

    def text(self, seconds: float) -> str:
        """The line, `seconds` after the start."""
        rate = self.done / seconds if seconds > 0 else 0.0
        parts = [f"{self.label}  {self._amount()}"]
        if rate > 0:
            parts.append(f"{quantity(rate, self.unit, digits=1)}/s")
            if self.total > self.done:
                parts.append(f"{duration((self.total - self.done) / rate)} left")
        return "  ".join(parts)

    def _amount(self) -> str:
        done = quantity(self.done, self.unit)
        if not self.total:
            return done
        share = min(100, 100 * self.done // self.total)
        return f"{share:3d} %  {done} of {quantity(self.total, self.unit)}"

    def clear(self) -> None:
        """Take the line off the terminal."""
        if self.width:
            self._write("\r" + " " * self.width + "\r")
            self.width = 0


@contextlib.contextmanager
def progress_line(label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, total) that shows a line of progress for one job after another."""
    bar: Progress | None = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if not total:  # nothing is known yet
            return
        if bar is None or bar.total != total or done < bar.done:
            bar = Progress(label, total, unit)
        bar.advance(done - bar.done)
        if done >= total:
            bar.clear()
            bar = None

    try:
        yield show
    finally:
        if bar is not None:
            bar.clear()
