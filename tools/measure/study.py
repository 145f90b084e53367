#!/usr/bin/env python3
"""What the far text is worth: models x lengths x methods x measures, the same prompts for all.

    .venv/bin/python tools/measure/study.py                    # SmolLM2-135M, everything
    .venv/bin/python tools/measure/study.py --model gemma3-270m --model qwen=/models/qwen.gguf
    .venv/bin/python tools/measure/study.py --what needles --windows 2 --methods lampe,rope
    .venv/bin/python tools/measure/study.py --show             # tables, pictures; measures nothing

Measures: perplexity, recall (excerpts fed again), needles (facts among their like in real text),
lines (LongEval's), kv (InfiniteBench's pairs), and documents (questions, each answered by one of
many; of --passages FILE, as for eval documents). A length is a multiple of a model's window, less
256 tokens for questions. Maps of positions are asked about one reading, made with --read-with;
truncate, rope, yarn, ntk and linear read for themselves, and so does all in perplexity. What was
measured is kept as it ends (study-MODEL.json in tools/reports), and answers before that: a run that
was stopped goes on. What has another map or text by then is measured anew. Other models than
SmolLM2 come from tools/measure/models.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import COUNT, run, tool

from lampe_gguf.cli.options import TEXT, Listed, Number
from lampe_gguf.errors import LampeError
from lampe_gguf.evaluate.suite import ALONE, method_setting
from lampe_gguf.evaluate.tasks.passages import Passages, read_passages
from lampe_gguf.evaluate.tasks.records import read_records
from lampe_gguf.model.choose import read_file
from lampe_gguf.model.presets import default_config
from measure.models import INSTALLED, SOURCES, found
from measure.studying.kept import FOLDER, Kept, all_reports, report_path
from measure.studying.measuring import (
    OFFERED,
    TASKS,
    WHAT,
    Job,
    length_of,
    measure_perplexity,
    measure_recall,
    measure_task,
    named,
)
from measure.studying.pictures import draw_facts, draw_recall
from measure.studying.tables import section
from measure.texts import KINDS, text_of

METHODS = ("lampe,truncate,rope,jetlong:W/4,jetlong:W/16,selfextend,rerope,yarn,ntk,linear")


def job_of(model: str, reports: Path, read_with: str, excerpts: int, threads: int | None) -> Job:
    """A model by its name, by its path, or by NAME=PATH."""
    name, _, path = model.rpartition("=")
    file = read_file(found(path))
    name = name or (path if path in (INSTALLED, *SOURCES) else Path(path).stem)
    kept = Kept.begin(report_path(reports, name), name, file.config.window,
                      Path(file).stat().st_size)
    return Job(file, kept, threads, None if read_with == "none" else read_with, excerpts)


def measure(
    job: Job, what: tuple[str, ...], windows: tuple[float, ...], texts: dict[str, str], seeds: int,
    methods: tuple[str, ...], passages: Passages | None = None,
) -> int:
    """All that is missing of one model, short lengths first; what cannot be measured is said."""
    names = [named(each, job.kept.window) for each in methods]
    lengths = sorted(length_of(job.kept.window, each) for each in windows)
    todo: list[Callable[[], None]] = []
    if "perplexity" in what:
        todo += [partial(measure_perplexity, job, kind, text, lengths, names)
                 for kind, text in texts.items()]
    for length in lengths:
        for kind, text in texts.items():
            if "recall" in what:
                todo.append(partial(measure_recall, job, kind, text, length, names))
            if "needles" in what:
                todo += [partial(measure_task, job, "needles", kind, text, seed, length, names)
                         for seed in range(seeds)]
        todo += [partial(measure_task, job, task, "", "", seed, length, names, passages)
                 for task in TASKS[1:] if task in what for seed in range(seeds)]
    failed = 0
    for each in todo:
        try:
            each()
        except LampeError as error:
            failed += 1
            print(f"left out of {job.kept.model}: {error}", file=sys.stderr)
    return failed


@tool(__doc__)
@click.option("--model", "models", multiple=True, default=[INSTALLED], show_default=True,
              metavar="MODEL", help="A name, a file, or NAME=FILE; may be given several times.")
@click.option("--what", type=Listed(click.Choice(OFFERED)), default=",".join(WHAT),
              show_default=True)
@click.option("--windows", type=Listed(Number(0.25, 64)), default="1,1.5,2,4", show_default=True,
              help="Lengths, as multiples of the model's window.")
@click.option("--methods", type=Listed(TEXT), default=METHODS, show_default=True,
              help="As eval needles takes them; W/4 is a quarter of the model's window.")
@click.option("--texts", type=Listed(click.Choice(KINDS)), default="essays", show_default=True,
              help=f"Kinds of text: {', '.join(KINDS)}.")
@click.option("--seeds", type=COUNT, default=1, show_default=True,
              help="How often names and numbers are drawn anew.")
@click.option("--excerpts", type=COUNT, default=64, show_default=True, help="For recall.")
@click.option("--read-with", default="lampe", show_default=True,
              help="What reads for all maps; none has each read for itself.")
@click.option("--passages", metavar="FILE", help="A JSONL of questions with passages: documents.")
@click.option("--threads", type=COUNT, help="Processor threads.  [default: all]")
@click.option("--reports", type=click.Path(path_type=Path), default=FOLDER, show_default=True)
@click.option("--show", "only_show", is_flag=True, help="Measure nothing; show all reports.")
def main(
    models: tuple[str, ...], what: tuple[str, ...], windows: tuple[float, ...],
    methods: tuple[str, ...], texts: tuple[str, ...], seeds: int, excerpts: int, read_with: str,
    passages: str | None, threads: int | None, reports: Path, only_show: bool,
) -> int:
    """Measure what is missing, print the tables, draw the pictures."""
    for each in methods:  # before any model is opened
        method_setting(named(each, 8192), default_config(8192), 8192, {})
    if "lampe" not in methods:
        raise click.UsageError("the others are compared with lampe: name it in --methods, too")
    if read_with in ALONE:
        raise click.UsageError(f"what is read with {read_with} serves no other method")
    if "documents" in what and passages is None:
        raise click.UsageError("documents are asked about passages: give --passages FILE")
    failed = 0
    if not only_show:
        given = None if passages is None else read_passages(read_records(passages))
        jobs = [job_of(each, reports, read_with, excerpts, threads) for each in models]
        # lines and kv are made from a seed
        wanted = texts if {"perplexity", "recall", "needles"} & set(what) else ()
        whole = {kind: text_of(kind) for kind in wanted}
        for job in jobs:
            failed += measure(job, what, windows, whole, seeds, methods, given)
    shown = all_reports(reports, ())
    for kept in shown:
        print(section(kept, methods))
    for draw, name in ((draw_facts, "facts.png"), (draw_recall, "recall.png")):
        if draw(shown, reports / name):
            print(f"drawn: {reports / name}")
    return 1 if failed else 0


if __name__ == "__main__":
    run(main)
