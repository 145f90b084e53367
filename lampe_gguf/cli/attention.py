"""lampe-gguf attention"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..evaluate.perplexity import METHODS
from ..shown import json_text, shown
from .console import out
from .options import PICTURE, THREAD_COUNT, THREADS, Listed, Number

if TYPE_CHECKING:
    from ..attention.measure import Report

HELP = """Look at MODEL's attention while it reads a long text: LaMPE against plain RoPE.

Three inputs for each length: the text's first tokens with plain RoPE, the same with LaMPE (or
what --methods names), and only the last of them that fit the trained length. Queries at the end
are compared: the uncertainty of their attention (entropy, nats), and its pattern (mass by
distance), as divergence from the trained length's pattern (Jensen-Shannon, bits: 0 the same, 1
nothing in common). A method that works stays close to the trained length. --passkey also hides a
key in the text, asks for it, and sets hits and misses against the uncertainty.

\b
Examples:
  lampe-gguf attention model.gguf --text book.txt --lengths 2048,8192,16384 --plot attention.png
  lampe-gguf attention model.gguf --text book.txt --lengths 4096 --passkey --depths 0.2,0.8
"""


@click.command(name="attention", help=HELP)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--text", required=True, metavar="FILE", help="The text; - is standard input.")
@click.option("--lengths", required=True, type=Listed(click.IntRange(2)), metavar="TOKENS,...",
              help="Lengths of the inputs.")
@click.option("--methods", default="rope,lampe", show_default=True, metavar="NAME,...",
              type=Listed(click.Choice([each for each in METHODS if each != "truncate"])),
              help="What to look at.")
@click.option("--queries", default=16, show_default=True, type=click.IntRange(1),
              help="Queries to look at, spread over the last 256 tokens.")
@click.option("--trained-length", type=click.IntRange(2), metavar="TOKENS",
              help="What to compare with.  [default: the model's window]")
@click.option("--passkey", is_flag=True, help="Hide a key at each depth, and ask for it.")
@click.option("--depths", default="0.1,0.3,0.5,0.7,0.9", show_default=True,
              type=Listed(Number(0, 1)), metavar="SHARE,...",
              help="Where keys are hidden: 0 the text's beginning, 1 its end.")
@click.option("--seed", default=0, show_default=True, help="Of the keys.")
@click.option("--threads", type=THREAD_COUNT, help=THREADS)
@click.option("--json", "as_json", is_flag=True, help="As JSON, with every layer and head.")
@click.option("--plot", type=PICTURE, help="Draw it into a PNG.")
def command(
    model: Path, text: str, lengths: tuple[int, ...], methods: tuple[str, ...], queries: int,
    trained_length: int | None, passkey: bool, depths: tuple[float, ...], seed: int,
    threads: int | None, as_json: bool, plot: Path | None,
) -> None:
    from ..attention.measure import measure
    from ..conversation.documents import read_document
    from .progress import Progress

    document = read_document(text)
    with Progress("reading", 0, "tokens") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.advance(done - bar.done)

        report = measure(
            model, document.text, lengths, methods=methods, n_queries=queries,
            trained_length=trained_length, passkey=passkey, depths=depths, seed=seed,
            threads=threads, on_progress=show,
        )
    if as_json:
        out(json_text(dataclasses.asdict(report)))
    else:
        print_report(report)
    if plot is not None:
        from ..attention.plot import plot_attention

        plot_attention(report, plot)


def print_report(report: Report) -> None:
    """For people: a line for each reading, one for each trial, and the trials' means."""
    out(f"{len(report.queries)} queries in the last {report.queries[0]} tokens; trained: "
        f"plain RoPE, the last {report.trained_length:,} tokens at most")
    near = [x for x in (16, 256, 4096) if x <= report.distances[-1]]
    ranges = ["<16" if not near else f"<{near[0]}",
              *(f"<{bound:,}" for bound in near[1:]), "beyond"]
    out(f"{'input':>9}  {'positions':<10} {'entropy':>8} {'divergence':>11}   "
        f"mass: {'first':>6} " + " ".join(f"{name:>7}" for name in ranges))
    for reading in report.readings:
        masses = [0.0] * len(ranges)
        for distance, mass in zip(report.distances, reading.pattern[1:], strict=True):
            masses[sum(distance >= bound for bound in near)] += mass
        divergence = "" if reading.method == "trained" else f"{reading.divergence:.4f} bits"
        out(f"{reading.length:>9,}  {reading.method:<10} {reading.uncertainty:>8.3f} "
            f"{divergence:>11}         {reading.pattern[0]:>6.3f} "
            + " ".join(f"{mass:>7.3f}" for mass in masses))
    if not report.trials:
        return
    out("passkey")
    for trial in report.trials:
        out(f"{trial.length:>9,}  {trial.method:<10} {trial.entropy:>8.3f}  depth "
            f"{trial.depth:.2f}  {'hit ' if trial.hit else 'miss'}  "
            f"{trial.key}: {shown(trial.answer)}")
    for hit, name in ((True, "hits"), (False, "misses")):
        found = [trial.entropy for trial in report.trials if trial.hit == hit]
        if found:
            out(f"{name:<21} {sum(found) / len(found):>8.3f}  mean of {len(found)}")
