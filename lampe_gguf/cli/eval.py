"""lampe-gguf eval"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import LampeError, UsageError
from ..evaluate.perplexity import METHODS, SCALINGS, Perplexity, check, perplexity
from ..shown import json_text, shown
from .console import out
from .eval_needles import needles_command
from .eval_recall import recall_command
from .eval_tasks import (
    documents_command,
    kv_command,
    lines_command,
    niah_command,
    passkey_command,
    ruler_command,
    tasks_command,
)
from .options import MAX_FACTOR, PICTURE, THREAD_COUNT, THREADS, Listed, Number, called_by_option
from .spelling import USED, Respelled

HELP = """Measure MODEL far beyond its training window, LaMPE against the alternatives.

ppl says how well it predicts a long text, recall what having read one is worth; the others ask
questions about one, the same for every method, and count the right answers. The honest baseline
among the methods is truncate: plain RoPE, given only the last window of the text.

\b
Examples:
  lampe-gguf eval ppl model.gguf --text book.txt --lengths 16384
  lampe-gguf eval niah model.gguf --lengths 8192,16384 --plot niah.png
"""

PPL_HELP = """Perplexity of the first tokens of a text, by position (lower is better).

The honest baseline is the method truncate: plain RoPE, given only the last window of the text.
Compare the last 2,048 tokens: over all, truncate is scored on its window alone.

\b
Examples:
  lampe-gguf eval ppl model.gguf --text book.txt --lengths 16384 --json
  lampe-gguf eval ppl model.gguf --text book.txt --lengths 8192,16384 --methods lampe,truncate
"""


@click.group(name="eval", help=HELP)
def command() -> None:
    pass


@command.command(name="ppl", help=PPL_HELP, cls=Respelled,
                 old={"--length": "--lengths", "--method": "--methods"})
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--text", required=True, metavar="FILE", help="The text; - is standard input.")
@click.option("--lengths", required=True, type=Listed(click.IntRange(2)), metavar="TOKENS,...",
              help="Tokens to read; several are a table.")
@click.option("--methods", default="lampe", show_default=True,
              type=Listed(click.Choice(METHODS)), metavar="NAME,...",
              help=", ".join(METHODS) + ".")
@click.option("--factor", type=Number(max=MAX_FACTOR), help="Of linear, yarn and ntk.")
@click.option("--local-window", type=int, help="Of lampe and its neighbours.")
@click.option("--group-size", type=int, help="Of selfextend.")
@click.option("--threads", type=THREAD_COUNT, help=THREADS)
@click.option("--portable", is_flag=True, help="Attention from stock operations (slower).")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--plot", type=PICTURE, help="Draw it by position into a PNG.")
def ppl(
    model: Path, text: str, lengths: tuple[int, ...], methods: tuple[str, ...],
    threads: int | None, portable: bool, as_json: bool, plot: Path | None, **choices: Any,
) -> None:
    from ..conversation.documents import read_document
    from ..model.choose import read_file
    from .progress import Progress

    for option, users in (("factor", SCALINGS), ("group_size", ("selfextend",))):
        if choices[option] is not None and not set(users) & set(methods):
            raise UsageError(f"--{option.replace('_', '-')} is for {', '.join(users)} only; leave "
                             "it out, or choose the method")
    document = read_document(text)
    file = read_file(model)
    window = file.config.window

    def work(method: str, length: int) -> int:
        return min(length, window) if method == "truncate" else length

    jobs = [(each, tokens) for tokens in lengths for each in methods]
    with called_by_option(choices):
        check(file, document.text, jobs, **choices)
    found: list[Perplexity] = []
    try:
        with Progress("starting", sum(work(*job) for job in jobs), "tokens") as bar:
            for each, tokens in jobs:
                bar.relabel(f"reading with {each}")
                before = bar.done

                def show(done: int, total: int, before: int = before) -> None:
                    bar.advance(before + done - bar.done)

                found.append(perplexity(
                    file, document.text, tokens, method=each, threads=threads,
                    portable=portable, on_progress=show, **choices,
                ))
    except (KeyboardInterrupt, LampeError):
        if found:  # what there is by then
            show_found(jobs, found, as_json)
        raise
    show_found(jobs, found, as_json)
    if plot is not None:
        from ..plot import plot_perplexity

        series = {}
        for (each, tokens), result in zip(jobs, found, strict=True):
            ends, values = zip(*result.blocks, strict=True)
            label = each if len(lengths) == 1 else f"{each}, {tokens:,} tokens"
            series[label] = (list(ends), list(values))
        plot_perplexity(series, window, plot)


def show_found(
    jobs: Sequence[tuple[str, int]], found: list[Perplexity], as_json: bool
) -> None:
    """All of the runs, or those there are."""
    if as_json:
        listed = [dataclasses.asdict(each) for each in found]
        out(json_text(listed[0] if _is_no_list() else {"runs": listed}))
    elif len(jobs) > 1:
        show_table(jobs, found)
    else:
        show_one(found[0])


def _is_no_list() -> bool:
    """Whether one run was asked for as it was once spelled, --length 9: its JSON was no list."""
    ctx = click.get_current_context()
    is_one = "--method" in ctx.meta[USED] or (
        ctx.get_parameter_source("methods") is click.core.ParameterSource.DEFAULT)
    return "--length" in ctx.meta[USED] and is_one


def show_one(found: Perplexity) -> None:
    """One run, block by block."""
    values = ", ".join(f"{name}={shown(value)}" for name, value in found.parameters.items())
    out(f"method       {found.method}" + (f" ({values})" if values else ""))
    out(f"attention    {found.path}")
    out(f"tokens       {found.tokens:,} in {found.seconds:.1f} s "
        f"({found.tokens_per_second:.0f} tokens/s)")
    out(f"perplexity   {found.all:.3f}")
    for name, value in (("last 2,048", found.last_2048), ("last 512", found.last_512)):
        if value is not None:
            out(f"{name:<12} {value:.3f}")
    for end, block in found.blocks:
        out(f"  to {end:>7,}  {block:.3f}")


def show_table(jobs: Sequence[tuple[str, int]], found: Sequence[Perplexity]) -> None:
    """A row for each run; an interruption leaves fewer runs than jobs."""

    def score(value: float | None) -> str:
        return f"{'-' if value is None else format(value, '.3f'):>12}"

    out(f"{'length':>9}  {'method':<11}{'all':>12}{'last 2,048':>12}{'last 512':>12}"
        f"{'tokens/s':>12}")
    for (method, length), each in zip(jobs, found, strict=False):
        out(f"{length:>9,}  {method:<11}{score(each.all)}{score(each.last_2048)}"
            f"{score(each.last_512)}{each.tokens_per_second:>12.0f}")


for each in (recall_command, needles_command, passkey_command, niah_command, kv_command,
             lines_command, documents_command, ruler_command, tasks_command):
    command.add_command(each)
