"""What a RULER task is before it is cut to a length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Parts:
    """build(n) is the context with n pieces of filling, the same whenever it is called.

    most  pieces that there are
    """

    before: str
    build: Callable[[int], str]
    after: str
    prefix: str
    expected: tuple[str, ...]
    depth: float | None = None
    most: int = 2**22
