#!/usr/bin/env python3
"""A portable wheel against the native build that is installed: tokens per second, pair by pair.

    python tools/measure/bench_builds.py DIR [MODEL] [--rounds 15] [--lengths 1024,16384]

DIR holds the libraries of a portable wheel (its llama_cpp/lib). Each build reads 512 tokens and
writes 23, at each length of the context, in a process of its own, and the two take turns at being
first. The ratio is that of a pair, the portable build's speed over the native one's; its median
over the rounds is given, with the quartiles. By the time that the processor computed, with one
thread: other programs on the machine take that thread's turn and not its time, but for what they
take of the caches. With --clock wall, and --threads, as a watch says it, which wants an idle
machine.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from arguments import COUNT, run, tool
from demo import model_path
from patched.places import cache_dir

from lampe_gguf.backend import api
from lampe_gguf.backend.variant import variants_in
from lampe_gguf.cli.progress import Progress
from measure.bench_threads import BATCH, LENGTHS, Speeds, Way, lengths_of, side

NATIVE, PORTABLE = "native", "portable"
WAY = Way(pool=True)  # both have ggml's own threads
CLOCKS = {"cpu": "process_time", "wall": "perf_counter"}


def measure(folder: Path, model: Path, threads: int, lengths: list[int], rounds: int,
            clock: str) -> Speeds:
    """The speeds of both builds, in the order of the rounds."""
    states = cache_dir() / "threads" / "states"
    states.mkdir(parents=True, exist_ok=True)
    speeds: Speeds = defaultdict(list)
    libraries = {NATIVE: None, PORTABLE: folder}
    side(WAY, None, model, threads, lengths, states)  # reads what all runs begin with
    with Progress("measuring", rounds * 2, "runs") as progress:
        for number in range(rounds):
            for name in (NATIVE, PORTABLE) if number % 2 else (PORTABLE, NATIVE):
                found = side(WAY, libraries[name], model, threads, lengths, states, clock)
                for what, speed in found.items():
                    speeds[name, False, what].append(speed)
                progress.advance(1)
    return speeds


def summary(speeds: Speeds) -> list[dict[str, float | str]]:
    """A row for each thing done: both medians, and the ratio's median and quartiles."""
    rows: list[dict[str, float | str]] = []
    for name, _, what in speeds:
        if name != NATIVE:
            continue
        native, portable = speeds[NATIVE, False, what], speeds[PORTABLE, False, what]
        ratios = [b / a for a, b in zip(native, portable, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        rows.append({"what": what, "native": statistics.median(native),
                     "portable": statistics.median(portable),
                     "ratio": middle, "low": low, "high": high})
    return rows


def show(rows: list[dict[str, float | str]]) -> str:
    """The rows as a table in Markdown."""
    lines = ["| what | native, tokens/s | portable | ratio | quartiles |", "|---|---|---|---|---|"]
    lines += [f"| {row['what']} | {row['native']:.1f} | {row['portable']:.1f} | "
              f"{row['ratio']:.3f} | {row['low']:.3f} to {row['high']:.3f} |" for row in rows]
    return "\n".join(lines)


@tool(__doc__)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path),
                metavar="DIR")
@click.argument("model", type=click.Path(exists=True, path_type=Path), required=False)
@click.option("--lengths", default=LENGTHS, show_default=True, metavar="N,N",
              help=f"Tokens in the context, ascending, each above {BATCH}.")
@click.option("--rounds", type=click.IntRange(min=2), default=15, show_default=True,
              help="Pairs.")
@click.option("--threads", type=COUNT, default=1, help="Threads of each.")
@click.option("--clock", type=click.Choice(list(CLOCKS)), default="cpu", show_default=True,
              help="What measures: the processor's time, or a watch.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="The rows as JSON, too.")
def main(folder: Path, model: Path | None, lengths: str, rounds: int, threads: int, clock: str,
         file: Path | None) -> None:
    if not variants_in(folder):
        raise click.BadParameter(f"{folder} holds no variant of ggml's CPU backend; name the "
                                 "llama_cpp/lib of a portable wheel", param_hint="DIR")
    if clock == "cpu" and threads > 1:
        raise click.BadParameter("the processor's time is that of all threads together; take "
                                 "--clock wall for more than one", param_hint="--threads")
    speeds = measure(folder.resolve(), model or model_path(), threads, lengths_of(lengths),
                     rounds, CLOCKS[clock])
    rows = summary(speeds)
    print(f"{threads} threads, {rounds} pairs, {clock} time, backend {api.version()}")
    print(show(rows))
    if file:
        file.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    run(main)
