#!/usr/bin/env python3
"""Fuzz what reads files and what writes them: for a night, or for a minute.

    python tools/fuzz.py [--minutes 10] [--seed 1] [--what container metadata faults] [--keep DIR]

container: mutated files through convert, inspect and strip, judged by the gguf package's reader.
metadata: mutated values through loading and reading, in a process that must not die of them.
faults: conversions that a signal, a kill or a failing disk interrupts; no file is ever half.

The time is shared. What is found is kept in a folder of its own under --keep, with a sentence;
--only N makes the N-th input of a seed again. The exit code is 1 where something was found.
"""

from __future__ import annotations

import argparse
import importlib
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import count
from fuzzing import quick_place

KINDS = {"container": ("containers", "Containers"), "metadata": ("metadata", "Metadata"),
         "faults": ("faults", "Faults")}
EVERY = 10.0  # seconds between lines


def make(what: str, folder: Path) -> Any:
    """A fuzzer by its name; its files are made in `folder`."""
    module, name = KINDS[what]
    return getattr(importlib.import_module(f"fuzzing.{module}"), name)(folder)


def fuzz(what: str, seconds: float, seed: int, keep: Path, only: int | None = None) -> int:
    """Run one fuzzer for so long; returns how many inputs went wrong."""
    wrong, number, start = 0, only or 0, time.monotonic()
    shown = start
    with tempfile.TemporaryDirectory(prefix="lampe-fuzz-", dir=quick_place()) as folder:
        fuzzer = make(what, Path(folder))
        try:
            while time.monotonic() - start < seconds:
                said = fuzzer.try_one(random.Random(f"{what} {seed} {number}"))
                if said is not None:
                    wrong += 1
                    kept = keep / f"{what}-{seed}-{number}"
                    shutil.copytree(fuzzer.found, kept, dirs_exist_ok=True, symlinks=True)
                    (kept / "wrong.txt").write_text(said + "\n")
                    print(f"{what} {number}: {said}\n  kept in {kept}", flush=True)
                number += 1
                if only is not None:
                    break
                if time.monotonic() - shown > EVERY:
                    shown = time.monotonic()
                    print(f"  {what}  {shown - start:.0f} s  {number} tried, {wrong} wrong",
                          file=sys.stderr, flush=True)
        finally:
            fuzzer.close()
    counts = {name: each for name, each in vars(fuzzer).items() if type(each) is int}
    print(f"{what}: {wrong} wrong; " + ", ".join(f"{n} {each}" for n, each in counts.items()),
          flush=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=count, default=10, help="of all together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--what", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--only", type=int, metavar="N", help="the N-th input alone")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"), help="for what is found")
    options = parser.parse_args()
    seconds = 60 * options.minutes / len(options.what)
    try:
        wrong = sum(fuzz(what, seconds, options.seed, options.keep, options.only)
                    for what in options.what)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
