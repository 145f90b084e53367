"""lampe-gguf calibrate"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..container import paths
from ..shown import MESSAGE_LIMIT, json_text, shown
from .console import out, say
from .options import NEW_FILE, PICTURE, THREAD_COUNT, THREADS
from .writing import writing

if TYPE_CHECKING:
    from ..calibration.report import Report

HELP = """Find the LaMPE constants that suit MODEL, by reading a long text under many of them.

The first tokens of the text are fitted on: the local window, the best mapping length at each of a
ladder of input lengths, the scaled sigmoid through them. As many after them decide whether the
result is better than the safe defaults. A report is saved after every reading, so that Ctrl-C
loses nothing: --resume goes on.

\b
Examples:
  lampe-gguf calibrate model.gguf --text book.txt --budget 30m --plot calibration.png
  lampe-gguf calibrate model.gguf --text a.txt --text b.txt --resume --write model.lampe.gguf
"""

UNITS = {"s": 1, "m": 60, "h": 3600}


class Duration(click.ParamType):  # type: ignore[type-arg]
    """30s, 45m, 2h; seconds."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", str(value))
        seconds = float(match[1]) * UNITS[match[2]] if match else 0.0
        if not 0 < seconds < math.inf:
            self.fail(f"{value!r:.80} is no time; say 45m, 2h or 90s", param, ctx)
        return seconds


@click.command(name="calibrate", help=HELP)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--text", "texts", multiple=True, metavar="FILE",
              help="Long plain text, as the model will read; may be given several times.  "
                   "[default: Python's own documentation]")
@click.option("--max-length", type=click.IntRange(2), metavar="TOKENS",
              help="The longest input.  [default: what text and budget allow, at most 4 windows]")
@click.option("--budget", type=Duration(), default="30m", show_default=True,
              help="Time to spend in this run, as 45m or 2h.")
@click.option("--report", "report_path", type=NEW_FILE, metavar="FILE",
              help="Where the report goes.  [default: MODEL.calibration.json]")
@click.option("--resume", is_flag=True, help="Go on from what the report holds.")
@click.option("--write", type=NEW_FILE, metavar="OUTPUT",
              help="Write MODEL with the constants to OUTPUT, as convert does.")
@click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")
@click.option("--threads", type=THREAD_COUNT, help=THREADS)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--plot", type=PICTURE, help="Draw points and curve into a PNG.")
def command(
    model: Path, texts: tuple[str, ...], max_length: int | None, budget: float,
    report_path: Path | None, resume: bool, write: Path | None, force: bool, threads: int | None,
    as_json: bool, plot: Path | None,
) -> None:
    from ..calibration.job import Outlook, calibrate
    from ..conversation.documents import read_documents
    from ..convert import convert_gguf
    from ..errors import UsageError
    from ..shown import duration
    from .progress import Progress

    if write is not None and paths.exists(write) and not force:
        raise UsageError(f"{write} exists; add --force to replace it")
    documents = read_documents(texts) if texts else None
    if documents is None:
        say("no --text: reading Python's own documentation; text of the kind that the model "
            "will read is better")
    path = report_path or model.with_name(model.name + ".calibration.json")
    if resume and not paths.exists(path):
        say(f"there is no {path} to go on from: starting anew")

    with Progress("calibrating", 0, "tokens") as bar:

        def outlook(found: Outlook) -> None:
            listed = ", ".join(f"{length:,}" for length in found.lengths)
            say(f"lengths {listed} tokens; about {found.readings} readings of about "
                f"{duration(found.seconds_reading)}, at most {duration(found.seconds)}")

        def show_progress(done: int, total: int) -> None:
            bar.total = total
            bar.advance(done - bar.done)

        try:
            report = calibrate(
                model, documents, max_length=max_length, budget=budget, report=path,
                resume=resume, threads=threads, on_outlook=outlook, on_progress=show_progress,
                on_stage=lambda stage: bar.relabel(f"calibrating: {stage}"),
            )
        except KeyboardInterrupt:
            bar.clear()
            if path.exists():
                say(f"what was read is in {path}; --resume goes on from there", new_line=True)
            raise
    if as_json:
        out(json_text(json.loads(path.read_text(encoding="utf-8")), indent=1))
    else:
        show(report)
        out(f"report       {shown(path)}")
    if write is not None:
        with writing() as on_progress:
            done = convert_gguf(
                model, write, config=report.config, force=force, on_progress=on_progress)
        (say if as_json else out)(f"wrote        {shown(done.outputs[0])}")
    if plot is not None:
        from ..calibration.plot import plot_calibration

        plot_calibration(report, plot)


def show(report: Report) -> None:
    """For people: the points, why, and what was chosen."""
    for point in report.points:
        least, most = point.tied
        same = "" if least == most else f"  (no worse: {least:,} to {most:,})"
        out(f"{point.length:>8,} tokens  best m {point.best:>7,}{same}")
    for reason in report.reasons:
        out(f"- {shown(reason, MESSAGE_LIMIT)}")
    if report.held_out:
        heads = "".join(f"{length:>9,}" for length in report.task.lengths)
        out(f"held out, perplexity {heads}   against the baseline")
        for each in report.held_out:
            # under `prompt` only the longest length is read as it would be
            numbers = "".join("        -" if x != x else f"{x:9.3f}" for x in each.perplexity)
            out(f"  {each.name:<18} {numbers}   {each.difference:+.4f} +- {each.error:.4f}")
    if report.config is not None:
        names = ("local_window", "tail_window", "max_mapping_length", "slope", "offset",
                 "short_length", "short_mapping_length", "attention_factor", "length_policy")
        values = dataclasses.asdict(report.config)
        out("values       " + ", ".join(f"{name}={values[name]}" for name in names))
