#!/usr/bin/env python3
"""Fuzz what reads files and what writes them: for a night, or for a minute.

    python tools/fuzz.py [--minutes 10] [--seed 1] [--what container] [--keep DIR]

container: mutated files through convert, inspect and strip, judged by the gguf package's reader.
metadata: mutated values through loading and reading, in a process that must not die of them.
faults: conversions that a signal, a kill or a failing disk interrupts; no file is ever half.

The time is shared. What is found is kept in a folder of its own under --keep, with a sentence;
--only N makes the N-th input of a seed again. The exit code is 1 where something was found.
"""

from __future__ import annotations

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

import click
from arguments import COUNT, run, tool
from fuzzing import quick_place

from lampe_gguf.cli.progress import Progress

KINDS = {"container": ("containers", "Containers"), "metadata": ("metadata", "Metadata"),
         "faults": ("faults", "Faults")}


def make(what: str, folder: Path) -> Any:
    """A fuzzer by its name; its files are made in `folder`."""
    module, name = KINDS[what]
    return getattr(importlib.import_module(f"fuzzing.{module}"), name)(folder)


def fuzz(what: str, seconds: float, seed: int, keep: Path, only: int | None = None) -> int:
    """Run one fuzzer for so long; returns how many inputs went wrong."""
    wrong, number, start = 0, only or 0, time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="lampe-fuzz-", dir=quick_place()) as folder,
        Progress(what, 0, "inputs") as bar,
    ):
        fuzzer = make(what, Path(folder))
        try:
            while time.monotonic() - start < seconds:
                said = fuzzer.try_one(random.Random(f"{what} {seed} {number}"))
                if said is not None:
                    wrong += 1
                    kept = keep / f"{what}-{seed}-{number}"
                    shutil.copytree(fuzzer.found, kept, dirs_exist_ok=True, symlinks=True)
                    (kept / "wrong.txt").write_text(said + "\n")
                    bar.clear()
                    bar.relabel(f"{what}, {wrong} wrong")
                    print(f"{what} {number}: {said}\n  kept in {kept}", flush=True)
                number += 1
                bar.advance(1)
                if only is not None:
                    break
        finally:
            fuzzer.close()
    counts = {name: each for name, each in vars(fuzzer).items() if type(each) is int}
    print(f"{what}: {wrong} wrong; " + ", ".join(f"{n} {each}" for n, each in counts.items()),
          flush=True)
    return wrong


@tool(__doc__)
@click.option("--minutes", type=COUNT, default=10, help="Of all together.")
@click.option("--seed", type=int, default=1)
@click.option("--what", multiple=True, type=click.Choice(list(KINDS)), default=list(KINDS),
              help="May be given more than once; default: all.")
@click.option("--only", type=int, metavar="N", help="The N-th input alone.")
@click.option("--keep", type=click.Path(path_type=Path), default=Path("fuzz-found"),
              help="For what is found.")
def main(minutes: int, seed: int, what: tuple[str, ...], only: int | None, keep: Path) -> int:
    """Run what was asked for; 1 where something was found."""
    seconds = 60 * minutes / len(what)
    return min(sum(fuzz(each, seconds, seed, keep, only) for each in what), 1)


if __name__ == "__main__":
    run(main)
