"""lampe-gguf eval recall"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..shown import json_text
from .console import out
from .options import PICTURE, TEXT, THREAD_COUNT, THREADS, Listed

if TYPE_CHECKING:
    from ..evaluate.recall import Recall

HELP = """What the far text is worth: how well MODEL predicts what it has read, by place.

The text's first tokens are read once. Excerpts of it, from depths spread evenly, are then fed
again behind a separator (16 tokens are given, 48 are predicted), and a quarter as many that were
never read. The loss is in nats a token; what having read a text is worth is the difference of the
two. The reading serves every method, as cached keys carry no positions: only the questions differ.

A method is lampe, rope, selfextend, jetlong or rerope, one of the last three with its local window
(jetlong:2048), or LaMPE's mapping length and local window (4096/1024); with an attention factor
behind @ (lampe@1.04). Also yarn, ntk, linear and truncate (plain RoPE given the last window alone):
each of these reads the text for itself, truncate no more of it than a window. --methods lampe
takes less time, and has nothing beside it.

\b
Examples:
  lampe-gguf eval recall model.gguf --text book.txt --lengths 12000
  lampe-gguf eval recall model.gguf --text book.txt --lengths 16000 \\
      --methods lampe,4096/1024,2048/1024,jetlong --plot recall.png
"""

HOW_TO_READ = ("lower is better, in nats a token; how far recall is below unseen is what having "
               "read is worth")


@click.command(name="recall", help=HELP)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--text", required=True, metavar="FILE",
              help="The text, longer than --lengths by 64 tokens an excerpt; - is standard input.")
@click.option("--lengths", required=True, type=Listed(click.IntRange(128)), metavar="TOKENS,...",
              help="Tokens to read; several are a table each.")
@click.option("--methods", default="lampe,truncate", show_default=True, type=Listed(TEXT),
              metavar="NAME,...",
              help="What is asked under; the others are compared with the first.")
@click.option("--read-with", default="lampe", show_default=True, type=TEXT, metavar="NAME",
              help="The method that the text is read under.")
@click.option("--reread", is_flag=True, help="Read the text anew under each method.")
@click.option("--excerpts", default=64, show_default=True, type=click.IntRange(2, 10000),
              help="Of the text, and a quarter as many fresh ones.")
@click.option("--threads", type=THREAD_COUNT, help=THREADS)
@click.option("--json", "as_json", is_flag=True, help="As JSON, each excerpt's loss in it.")
@click.option("--plot", type=PICTURE, help="Draw the loss by depth into a PNG.")
def recall_command(
    model: Path, text: str, lengths: tuple[int, ...], methods: tuple[str, ...], read_with: str,
    reread: bool, excerpts: int, threads: int | None, as_json: bool, plot: Path | None,
) -> None:
    from ..conversation.documents import read_document
    from ..evaluate.recall import recall
    from ..model.choose import read_file
    from .progress import progress_line

    document = read_document(text)
    file = read_file(model)
    tables: list[list[Recall]] = []
    try:
        with progress_line("reading and asking", "tokens") as on_progress:
            for length in lengths:
                tables.append([])
                recall(
                    file, document.text, length, methods=methods, read_with=read_with,
                    reread=reread, excerpts=excerpts, threads=threads, on_progress=on_progress,
                    on_found=tables[-1].append,
                )
    finally:
        if any(tables):  # what there is by then
            show([table for table in tables if table], as_json)
    if plot is not None:
        from ..evaluate.tasks.pictures import plot_recall

        plot_recall(tables, plot)


def show(tables: list[list[Recall]], as_json: bool) -> None:
    """A table for each length."""
    if as_json:
        out(json_text({"runs": [dataclasses.asdict(each) for table in tables for each in table]}))
        return
    for table in tables:
        show_table(table)
    out(HOW_TO_READ)


def show_table(found: list[Recall]) -> None:
    """All methods, those after the first with what they lose against it."""
    from ..evaluate.recall import versus

    first = found[0]
    out(f"read {first.length:,} tokens; nats a token on {len(first.excerpts)} excerpts of them by "
        f"quarter, far to near, and on {len(first.fresh)} fresh ones")
    out(f"{'method':<14}{'recall':>16}  {'far ... near':<26}{'unseen':>16}")
    for each in found:
        depth = " ".join(f"{part.mean:.3f}" for part in each.by_depth)
        out(f"{each.name:<14}{_loss(each.recall.mean, each.recall.error)}  {depth:<26}"
            f"{_loss(each.unseen.mean, each.unseen.error)}")
    if len(found) > 1:
        out(f"against {first.name}, excerpt by excerpt:")
        for each in found[1:]:
            recall, unseen = versus(each, first)
            out(f"{each.name:<14}{_loss(recall.mean, recall.error, '+')}  {'':<26}"
                f"{_loss(unseen.mean, unseen.error, '+')}")


def _loss(mean: float, error: float, sign: str = "") -> str:
    return f"{mean:{sign}.3f} +- {error:.3f}".rjust(16)
