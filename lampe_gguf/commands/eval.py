"""lampe-gguf eval"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from ..evaluate import METHODS, perplexity
from .eval_tasks import kv_command, niah_command, passkey_command, ruler_command

HELP = """Measure how well MODEL predicts a long text.

\b
Examples:
  lampe-gguf eval ppl model.gguf --text book.txt --length 16384
  lampe-gguf eval ppl model.gguf --text book.txt --length 16384 --method truncate
"""

PPL_HELP = """Perplexity of the first LENGTH tokens of a text, by position (lower is better).

The honest baseline is --method truncate: plain RoPE, given only the last window of the text.

\b
Example:
  lampe-gguf eval ppl model.gguf --text book.txt --length 16384 --json
"""


@click.group(name="eval", help=HELP)
def command() -> None:
    pass


@command.command(name="ppl", help=PPL_HELP)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--text", required=True, metavar="FILE", help="The text; - is standard input.")
@click.option("--length", required=True, type=click.IntRange(2), help="Tokens to read.")
@click.option("--method", type=click.Choice(METHODS), default="lampe", show_default=True)
@click.option("--factor", type=float, help="Of linear, yarn and ntk.")
@click.option("--local-window", type=int, help="Of lampe and its neighbours.")
@click.option("--group-size", type=int, help="Of selfextend.")
@click.option("--threads", type=click.IntRange(1), help="Processor threads.")
@click.option("--portable", is_flag=True, help="Attention from stock operations (slower).")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw it by position into a PNG.")
def ppl(
    model: Path, text: str, length: int, method: str, threads: int | None, portable: bool,
    as_json: bool, plot: Path | None, **choices: Any,
) -> None:
    from ..documents import read_document
    from ..progress import Progress

    document = read_document(text)
    with Progress(f"reading with {method}", length, "tokens") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.advance(done - bar.done)

        found = perplexity(
            model, document.text, length, method=method, threads=threads,
            flash_attn=not portable, on_progress=show, **choices,
        )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        values = ", ".join(f"{name}={value}" for name, value in found.parameters.items())
        click.echo(f"method       {found.method}" + (f" ({values})" if values else ""))
        click.echo(f"attention    {found.path}")
        click.echo(f"tokens       {found.tokens:,} in {found.seconds:.1f} s "
                   f"({found.tokens_per_second:.0f} tokens/s)")
        click.echo(f"perplexity   {found.all:.3f}")
        for name, value in (("last 2,048", found.last_2048), ("last 512", found.last_512)):
            if value is not None:
                click.echo(f"{name:<12} {value:.3f}")
        for end, value in found.blocks:
            click.echo(f"  to {end:>7,}  {value:.3f}")
    if plot is not None:
        from ..plot import plot_perplexity
        from ..session import file_config

        ends, values_ = zip(*found.blocks, strict=True)
        series = {method: (list(ends), list(values_))}
        plot_perplexity(series, file_config(model)[1].window, plot)


for each in (passkey_command, niah_command, kv_command, ruler_command):
    command.add_command(each)
