"""What the task commands share: their options, the run, and what is shown of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from ..errors import LampeError
from ..evaluate.perplexity import METHODS
from ..shown import json_text
from .console import out, say
from .options import (
    MAX_FACTOR,
    PICTURE,
    TEXT,
    THREAD_COUNT,
    THREADS,
    Listed,
    Number,
    called_by_option,
)

if TYPE_CHECKING:
    from ..evaluate.suite import Generator
    from ..evaluate.tasks.journal import Result

F = TypeVar("F", bound=Callable[..., Any])


LENGTHS = click.option(
    "--lengths", type=Listed(click.IntRange(64)), default="4096,8192,16384", show_default=True,
    metavar="TOKENS,...", help="Of prompt and answer.",
)
LIMIT = click.option("--limit", type=click.IntRange(1), default=10, show_default=True,
                     help="Questions for each task and length.")
SEED = click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
                    help="Another one makes other questions.")
HAYSTACK = click.option("--text", "haystack", metavar="FILE",
                        help="Text to hide things in.  [default: Python's own documentation]")

READ_WITH = click.option(
    "--read-with", type=TEXT, metavar="NAME",
    help="Read each text once, with this method, for all that only map positions; they differ in "
         "the questions.  [default: each reads for itself]",
)
RAW = click.option("--raw", is_flag=True, help="Leave the chat template aside: small models often "
                                               "continue a text better than they answer.")

OLD = {"--haystack": "--text"}  # of commands that have it

_COMMON = (
    click.option("--methods", type=Listed(TEXT), default="lampe,truncate", show_default=True,
                 metavar="NAME,...",
                 help=", ".join(METHODS) + "; a neighbour with its local window (jetlong:2048), or "
                      "LaMPE's mapping length and local window (4096/1024)."),
    click.option("--resume", type=click.Path(path_type=Path), metavar="FILE",
                 help="Keep each answer in FILE as it comes, and ask nothing again that it holds."),
    click.option("--factor", type=Number(max=MAX_FACTOR), help="Of linear, yarn and ntk."),
    click.option("--local-window", type=int, help="Of lampe and its neighbours."),
    click.option("--group-size", type=int, help="Of selfextend."),
    click.option("--threads", type=THREAD_COUNT, help=THREADS),
    click.option("--portable", is_flag=True, help="Attention from stock operations (slower)."),
    click.option("--json", "as_json", is_flag=True, help="Everything as JSON, single answers too."),
    click.option("--plot", type=PICTURE, help="Draw the scores into a PNG."),
)


def task_options(*own: Callable[[Any], Any]) -> Callable[[F], F]:
    """Add MODEL, a command's own options, and those that all tasks share.

    READ_WITH and RAW are a command's own: one may not have them, or with another default.
    """

    def add(function: F) -> F:
        for option in reversed([*own, *_COMMON]):
            function = option(function)
        return click.argument("model", type=click.Path(path_type=Path))(function)

    return add


def read_haystack(name: str | None) -> Any:
    """The Haystack of a file, or the default one."""
    from ..conversation.documents import read_document
    from ..evaluate.tasks.haystack import haystack

    return haystack(None if name is None else read_document(name).text)


def run_tasks(
    model: Path, generate: Generator, lengths: tuple[int, ...], *, methods: tuple[str, ...],
    read_with: str | None, resume: Path | None, threads: int | None, portable: bool, as_json: bool,
    plot: Path | None, raw: bool = True, seed: int = 0, by: Literal["depth", "quarter", ""] = "",
    **choices: Any,
) -> None:
    """Run, and show what came out: all of it, or what there is by an error or Ctrl-C.

    by  what the table and the picture tell apart, too: depths of a grid, or quarters of the text
    """
    from ..evaluate.asking import Observer
    from ..evaluate.suite import Suite
    from .progress import Progress

    suite = Suite(
        model, generate, lengths, methods, read_with=read_with, raw=raw, threads=threads,
        portable=portable, choices=choices, resume=resume,
    )
    results = suite.results
    try:
        with Progress("starting", 0, "tokens") as bar:

            def outlook(total: int) -> None:
                bar.total = max(total, bar.done)

            def note(text: str) -> None:
                bar.clear()
                say(text)

            observer = Observer(outlook, bar.advance, bar.relabel, note)
            with called_by_option(choices):
                for _ in suite.run(observer):
                    pass
    except (KeyboardInterrupt, LampeError):
        if results:
            where = ("the same command goes on from there" if resume is not None else
                     "with --resume FILE, nothing would have to be asked again")
            kept = f" are in {resume}" if resume is not None else ""
            say(f"{len(results)} answers{kept}; {where}", new_line=True)
            _show(results, suite, as_json, by, seed)
        raise
    _show(results, suite, as_json, by, seed)
    if plot is not None and results:
        from ..evaluate.tasks.pictures import plot_grid, plot_places, plot_scores
        from ..evaluate.tasks.report import cells

        if by == "depth":
            plot_grid(cells(results, by_depth=True), plot)
        elif by == "quarter":
            plot_places(results, suite.window, plot)
        else:
            plot_scores(cells(results, seed=seed), suite.window, plot)


def _show(
    results: list[Result], suite: Any, as_json: bool, by: str, seed: int
) -> None:
    from ..evaluate.tasks.report import as_dict, cells, grid, quarters, table

    if as_json:
        about = {"model": str(suite.model), "window": suite.window, "raw": suite.raw, "seed": seed,
                 "parameters": suite.parameters}
        out(json_text(as_dict(results, by == "depth", **about)))
        return
    out(table(cells(results, seed=seed), suite.methods))
    if by == "quarter":
        out()
        out(quarters(results, suite.methods))
    if by == "depth":
        out()
        out(grid(cells(results, by_depth=True, seed=seed), suite.methods))
    out("\nmean score (95 % interval); prompts of the same tokens for every method, "
        f"truncate's cut to the window of {suite.window:,}")
