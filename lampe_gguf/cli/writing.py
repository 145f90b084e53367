"""While a command writes a model: its progress, and how a signal ends it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from .progress import Progress
from .stopping import stopping


@contextlib.contextmanager
def writing() -> Iterator[Callable[[int, int], None]]:
    """Gives the `on_progress` of convert and strip, which draws a bar."""
    with stopping(), Progress("copying", 0) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.advance(done - bar.done)
            if done == total:
                bar.relabel("waiting for the disk")

        yield show
