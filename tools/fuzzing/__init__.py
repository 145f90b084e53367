"""Fuzzers: they make hostile inputs from a seed, and say what should not have happened.

Each has try_one(rng), which makes one input, uses it, and returns what is wrong in a sentence or
None; `found` is then the folder with what it takes to see it again. The same seed makes the same
inputs. tests/tools/test_fuzzing.py runs some of each; tools/fuzz.py runs them for as long as one
likes.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Protocol

MEMORY = Path("/dev/shm")


def quick_place() -> Path | None:
    """A folder in memory, where syncing costs nothing; None where the system has none."""
    return MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None


class Fuzzer(Protocol):
    """One kind of hostile input; its files are made in the folder that it was given."""

    found: Path

    def try_one(self, rng: random.Random) -> str | None:
        """One input; what is wrong with what came of it, or None."""

    def close(self) -> None:
        """End what it has started."""
