"""lampe-gguf ask"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click

from ..shown import json_text, visible
from .console import input_waits, out, say
from .options import DOC, FIT, TEXT, generation_options, kept_readings, readings_options
from .progress import progress_line

HELP = """Have MODEL read documents of any length and answer QUESTION.

What was read of the documents is kept on disk, for you alone ('lampe-gguf readings' lists it), and
the next question about them is answered at once; --no-readings keeps nothing.

\b
Examples:
  lampe-gguf ask model.lampe.gguf --doc book.txt "Who wrote the letter?"
  lampe-gguf ask model.lampe.gguf --doc report.pdf --doc notes/ "What was decided?"
  lampe-gguf ask model.lampe.gguf --doc long.epub --fit spread "Sum it up."
"""

NOT_READ = "what stands on standard input is not read; --doc - reads it"


@click.command(name="ask", help=HELP)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("question", type=TEXT)
@click.option("--doc", "docs", multiple=True, metavar="FILE",
              help=DOC + "  - is standard input.")
@FIT
@generation_options
@readings_options
@click.option("--json", "as_json", is_flag=True, help="The answer and its figures as JSON.")
def command(
    model: Path, question: str, docs: tuple[str, ...], fit: str | None, max_tokens: int,
    temperature: float, seed: int | None, threads: int | None, n_ctx: int | None,
    rpc: tuple[str, ...], no_lampe: bool, readings_max: int | None, no_readings: bool,
    as_json: bool,
) -> None:
    from ..conversation.ask import ask
    from ..conversation.documents import read_documents
    from ..conversation.reply import early_end

    on_terminal = sys.stdout.isatty()

    def show(text: str) -> None:
        if not as_json:
            out(visible(text) if on_terminal else text, end="")

    is_waiting = "-" not in docs and input_waits()
    if is_waiting:
        say(NOT_READ)
    with progress_line("opening", "parts") as on_part:
        documents = read_documents(docs, to_ask=True, on_progress=on_part, on_note=say)
    with (
        progress_line("counting", "characters") as on_count,
        progress_line("reading", "tokens") as on_progress,
        kept_readings(no_readings, readings_max) as readings,
    ):
        answer = ask(
            model, question, documents, max_tokens=max_tokens, temperature=temperature,
            seed=seed, threads=threads, n_ctx=n_ctx, use_lampe=not no_lampe, readings=readings,
            fit=fit, rpc_servers=rpc, on_text=show, on_count=on_count, on_progress=on_progress,
            on_note=say,
        )
    if not is_waiting and "-" not in docs and input_waits():  # who writes it came later
        say(NOT_READ)
    early = early_end(answer.text, answer.answer_tokens, max_tokens)
    if as_json:
        out(json_text(dataclasses.asdict(answer)))
        if early is not None:
            say(early)
        return
    out()
    if early is not None:
        say(early)
    for source in answer.sources:
        say(source.said())
    attention = "LaMPE off" if no_lampe else f"attention {answer.path}"
    n_read = answer.prompt_tokens - answer.kept_tokens
    rate = n_read / answer.seconds_reading if answer.seconds_reading else 0
    kept = ""
    if answer.kept_tokens:
        kept = (f"{answer.kept_tokens:,} tokens from a kept reading in "
                f"{answer.seconds_loading:.1f} s, ")
    say(
        f"[read {n_read:,} tokens in {answer.seconds_reading:.1f} s "
        f"({rate:,.0f} tokens/s), {kept}{attention}, "
        f"compression {answer.compression:.2f}]"
    )
