"""lampe-gguf ask"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import click

from .options import generation_options

HELP = """Have MODEL read documents of any length and answer QUESTION.

\b
Examples:
  lampe-gguf ask model.lampe.gguf --doc book.txt "Who wrote the letter?"
  pdftotext report.pdf - | lampe-gguf ask model.lampe.gguf --doc - "Sum it up."
"""


@click.command(name="ask", help=HELP)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("question")
@click.option("--doc", "docs", multiple=True, metavar="FILE",
              help="A text to read; may be given several times; - is standard input.")
@generation_options
@click.option("--json", "as_json", is_flag=True, help="The answer and its figures as JSON.")
def command(
    model: Path, question: str, docs: tuple[str, ...], max_tokens: int, temperature: float,
    seed: int | None, threads: int | None, n_ctx: int | None, no_lampe: bool, as_json: bool,
) -> None:
    from ..ask import ask
    from ..documents import read_documents

    def show(text: str) -> None:
        if not as_json:
            sys.stdout.write(text)
            sys.stdout.flush()

    # bytes of an argument that are no UTF-8 come as surrogates, which no tokenizer takes
    question = question.encode(errors="surrogateescape").decode(errors="replace")
    answer = ask(
        model, question, read_documents(docs), max_tokens=max_tokens, temperature=temperature,
        seed=seed, threads=threads, n_ctx=n_ctx, use_lampe=not no_lampe, on_text=show,
    )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(answer), indent=2))
        return
    click.echo()
    attention = "LaMPE off" if no_lampe else f"attention {answer.path}"
    rate = answer.prompt_tokens / answer.seconds_reading if answer.seconds_reading else 0
    click.echo(
        f"[read {answer.prompt_tokens:,} tokens in {answer.seconds_reading:.1f} s "
        f"({rate:,.0f} tokens/s), {attention}, "
        f"compression {answer.compression:.2f}]",
        err=True,
    )
