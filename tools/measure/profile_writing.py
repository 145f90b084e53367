#!/usr/bin/env python3
"""Where the time of a token goes that is written at the end of a long context, by function.

Reads, then writes under `perf record` (Debian: linux-perf), and prints each function's share of the
processor's time, all threads together.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from arguments import COUNT, run, tool
from demo import model_path

from lampe_gguf.bench.side import open_side
from lampe_gguf.cli.progress import Progress
from lampe_gguf.errors import LampeError

LEAST = 0.5  # per cent: less is not shown
FREQUENCY = 999  # samples a second and thread


def write(llm: Any, tokens: int) -> float:
    """Write under perf's eyes; median seconds a token."""
    times = []
    for token in range(tokens):
        start = time.perf_counter()
        llm.eval([1000 + token])
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def shares(record: Path) -> dict[str, float]:
    """Per cent by function, the instances of a template together."""
    done = subprocess.run(
        ["perf", "report", "-i", str(record), "--stdio", "--no-children", "-s", "dso,symbol",
         "--percent-limit", "0.05"], capture_output=True, text=True)
    found: dict[str, float] = defaultdict(float)
    for line in done.stdout.splitlines():
        match = re.match(r"\s*([\d.]+)%\s+(\S+)\s+\[.\]\s+(\S+)", line)
        if match:
            share, library, symbol = match.groups()
            name = symbol.partition("<")[0].partition("(")[0]
            found[library if name.startswith("0x") else name] += float(share)
    return found


@tool(__doc__)
@click.option("--length", type=COUNT, default=16384, help="Tokens in the context.")
@click.option("--tokens", type=COUNT, default=128, help="Tokens to write.")
def main(length: int, tokens: int) -> None:
    """Read, write, and show."""
    if shutil.which("perf") is None:
        raise LampeError("there is no perf here: install it (Debian: linux-perf)")
    threads = os.cpu_count() or 1  # as lampe-gguf bench does
    llm = open_side("lampe", str(model_path()), n_ctx=length + tokens, n_batch=512,
                    n_threads=threads, n_threads_batch=threads)
    draw = random.Random(0)
    with Progress("reading", length, "tokens") as bar:
        for start in range(0, length, 512):
            n = min(512, length - start)
            llm.eval([draw.randrange(1000, 40000) for _ in range(n)])
            bar.advance(n)
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "perf.data"
        perf = subprocess.Popen(["perf", "record", "-o", str(record), "-F", str(FREQUENCY),
                                 "-p", str(os.getpid())], stderr=subprocess.DEVNULL)
        time.sleep(1)  # perf takes hold of the threads that there are
        seconds = write(llm, tokens)
        perf.terminate()
        perf.wait()
        found = shares(record)
    llm.close()
    if not found:
        raise LampeError("perf saw nothing: it may need kernel.perf_event_paranoid = 1")
    print(f"{1000 * seconds:.1f} ms a token at {length:,} tokens, {threads} threads")
    for name, share in sorted(found.items(), key=lambda each: -each[1]):
        if share >= LEAST:
            print(f"{share:6.1f} %  {name}")


if __name__ == "__main__":
    run(main)
