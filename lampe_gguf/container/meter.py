"""How far a long piece of work is, for an `on_progress`."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[int, int], None]  # done so far, all there is to do


class Meter:
    """Counts what is done over several steps; the total is expected, and may be mended."""

    def __init__(self, total: int, on_progress: OnProgress | None = None) -> None:
        self.done = 0
        self.total = total
        self.on_progress = on_progress

    def advance(self, count: int) -> None:
        self.done += count
        if self.on_progress is not None:
            self.on_progress(self.done, self.total)
