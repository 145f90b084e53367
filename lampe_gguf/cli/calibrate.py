"""lampe-gguf calibrate"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..container import paths
from ..shown import MESSAGE_LIMIT, json_text, shown
from .console import out, say
from .options import NEW_FILE, PICTURE, THREAD_COUNT, THREADS
from .writing import writing

if TYPE_CHECKING:
    from ..calibration.report import Judged, Report

HELP = """Find the LaMPE map by which MODEL makes most of a long text.

The first tokens of the text are read once, under what convert would write. Excerpts of them and
fresh ones are then asked under many maps, as `eval recall` does: what counts is recall loss plus
unseen loss, beyond the window, with no loss inside it. The best maps then read another part of the
text, which decides whether they are better than what convert would write. A report is saved after
every map, so that Ctrl-C loses nothing: --resume goes on.

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


class Weights(click.ParamType):  # type: ignore[type-arg]
    """Two numbers with a comma between them."""

    name = "weights"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r:.80} is no weights; say 1,1 or 1,0.5", param, ctx)


@click.command(name="calibrate", help=HELP)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--text", "texts", multiple=True, metavar="FILE",
              help="Long plain text, as the model will read; may be given several times.  "
                   "[default: Python's own documentation]")
@click.option("--max-length", type=click.IntRange(2), metavar="TOKENS",
              help="The longest input; beyond 2 windows, shorter ones are looked at too.  "
                   "[default: 2 windows, or 1.5 where text or budget is small]")
@click.option("--budget", type=Duration(), default="30m", show_default=True,
              help="Time to spend in this run, as 45m or 2h.")
@click.option("--weights", default="1,1", show_default=True, type=Weights(),
              metavar="RECALL,UNSEEN",
              help="What recall loss and unseen loss count; 0,1 is perplexity's view.")
@click.option("--report", "report_path", type=NEW_FILE, metavar="FILE",
              help="Where the report goes.  [default: MODEL.calibration.json]")
@click.option("--resume", is_flag=True, help="Go on from what the report holds.")
@click.option("--write", type=NEW_FILE, metavar="OUTPUT",
              help="Write MODEL with the constants to OUTPUT, as convert does.")
@click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")
@click.option("--threads", type=THREAD_COUNT, help=THREADS)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--plot", type=PICTURE, help="Draw both losses by mapping length into a PNG.")
def command(
    model: Path, texts: tuple[str, ...], max_length: int | None, budget: float,
    weights: tuple[float, ...], report_path: Path | None, resume: bool, write: Path | None,
    force: bool, threads: int | None, as_json: bool, plot: Path | None,
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
            say(f"lengths {listed} tokens, {found.excerpts[0]} excerpts and {found.excerpts[1]} "
                f"fresh ones; about {duration(found.seconds_reading)} a reading and "
                f"{duration(found.seconds_asking)} a map, at most {duration(found.seconds)}")

        def show_progress(done: int, total: int) -> None:
            bar.total = total
            bar.advance(done - bar.done)

        try:
            report = calibrate(
                model, documents, max_length=max_length, budget=budget, report=path,
                resume=resume, weights=weights, threads=threads, on_outlook=outlook,
                on_progress=show_progress,
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
    """For people: what each map did, why, and what was chosen."""
    lengths = report.task.lengths
    show_losses(report.candidates, lengths, "asked from one reading")
    for reason in report.reasons:
        out(f"- {shown(reason, MESSAGE_LIMIT)}")
    show_losses(report.held_out, lengths, "held out, each read under its own map")
    if report.config is not None:
        names = ("local_window", "tail_window", "max_mapping_length", "slope", "offset",
                 "short_length", "short_mapping_length", "attention_factor")
        values = dataclasses.asdict(report.config)
        out("values       " + ", ".join(f"{name}={values[name]}" for name in names))


def show_losses(found: Sequence[Judged], lengths: Sequence[int], what: str) -> None:
    """A table of recall and unseen loss at each length, and the whole against the baseline."""
    if not found:
        return
    heads = "".join(f"{length:>16,}" for length in lengths)
    names = [f"{each.name} ({each.kind})" if each.kind in ("baseline", "plain") else each.name
             for each in found]
    width = max(22, *map(len, names))
    out(f"{what}: recall and unseen loss, nats a token, by tokens read")
    out(f"  {'':<{width}}{heads}   both, beyond the window, against what convert would write")
    for name, each in zip(names, found, strict=True):
        numbers = "".join(
            f"{'-':>16}" if recall != recall else f"{recall:9.3f} {unseen:6.3f}"
            for recall, unseen in zip(each.recall, each.unseen, strict=True))
        more = ("" if each.difference != each.difference or each.kind == "baseline" else
                f"{each.difference:+.3f} +- {each.error:.3f}")
        out(f"  {name:<{width}}{numbers}   {more}")
