"""lampe-gguf eval needles"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import TEXT
from .task_options import LENGTHS, SEED, run_tasks, task_options

if TYPE_CHECKING:
    from ..evaluate.tasks.item import Count, Item

HELP = """Twenty facts spread through a real text: which of them does MODEL find, and where?

Each is "The special magic number for NAME is DIGITS."; every other misleads. They are asked for
one by one, by the beginning of the sentence, which is to be continued: no chat template is needed.

The text is read once, and asked under each method that only maps positions, as cached keys carry
none; --read-with none has each read it for itself. truncate (plain RoPE, given the last window
alone: the honest baseline), linear, yarn and ntk always do.

\b
Examples:
  lampe-gguf eval needles model.gguf --text book.txt --lengths 15800
  lampe-gguf eval needles model.gguf --text book.txt --lengths 15800 \\
      --methods lampe,4096/1024,jetlong:2048,truncate --plot needles.png --resume needles.jsonl
"""


@click.command(name="needles", help=HELP)
@task_options(
    LENGTHS,
    click.option("--text", required=True, metavar="FILE",
                 help="Text to hide them in, longer than --lengths; - is standard input."),
    click.option("--facts", type=click.IntRange(1, 1000), default=20, show_default=True,
                 help="How many are hidden."),
    SEED,
    click.option("--read-with", type=TEXT, default="lampe", show_default=True, metavar="NAME",
                 help="The method that the text is read with, once; or none."),
)
def needles_command(
    model: Path, lengths: tuple[int, ...], text: str, facts: int, seed: int, read_with: str,
    **options: Any,
) -> None:
    from ..conversation.documents import read_document
    from ..evaluate.tasks.needles import needles

    document = read_document(text)

    def generate(length: int, count: Count) -> Iterator[Item]:
        return needles(length, count, text=document.text, facts=facts, seed=seed)

    run_tasks(model, generate, lengths, seed=seed, by="quarter",
              read_with=None if read_with == "none" else read_with, **options)
