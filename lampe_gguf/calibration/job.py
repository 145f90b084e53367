"""One calibration from a file and a text to a report: what to read, how long it takes, go."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backend.vocabulary import beginning, excerpt
from ..container import paths
from ..container.format import padded
from ..container.reader import GGUFFile
from ..conversation.documents import Document
from ..conversation.session import PAD
from ..errors import LampeError, UsageError
from ..model.choose import choose_config, require_qualified
from ..model.description import read_model
from ..model.presets import default_config
from .report import Report, Task, load_readings, longest_length, model_fingerprint, text_fingerprint
from .run import FITTED, HELD_OUT, Calibration, Clock, OnStage, calibrate

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama
    from .reading import OnTokens

PROBE = 256  # tokens that are read to see how fast the machine is
READINGS = 20  # of a whole calibration, about
LADDER = (0.5, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)  # lengths, in windows
MIN_WINDOW = 64  # a quarter of it, the tail, falls into pieces
TAIL = 1024  # tokens before a length whose loss counts, at most


@dataclasses.dataclass(frozen=True)
class Outlook:
    """What is about to be done; seconds are an estimate, of one reading and of all."""

    lengths: tuple[int, ...]
    readings: int
    seconds_reading: float
    seconds: float


OnOutlook = Callable[[Outlook], None]


def calibrate_model(
    model: Path,
    documents: list[Document],
    report_path: Path,
    *,
    max_length: int | None = None,
    budget: float | None = None,
    resume: bool = False,
    threads: int | None = None,
    on_outlook: OnOutlook | None = None,
    on_tokens: OnTokens = lambda count: None,
    on_stage: OnStage = lambda stage: None,
) -> Report:
    """Find LaMPE's constants for a model, in readings of two stretches of a text.

    documents    their texts one after the other; the first tokens are fitted on, as many after
                 them decide
    report_path  written after every reading
    max_length   end of the ladder of lengths, tokens; chosen from text and budget by default
    budget       seconds; None: as long as it takes
    resume       go on from what `report_path` holds

    Raises LampeError where the model is refused or the text too short, UsageError where the
    budget holds no calibration. Ctrl-C leaves the report as far as it got.
    """
    from ..backend.llama import LampeLlama

    start = time.monotonic()
    with GGUFFile(model) as file:
        info = read_model(file)
        require_qualified(info)
        baseline = choose_config(info)
    if paths.exists(report_path) and not resume:
        raise UsageError(f"{report_path} exists; add --resume to go on from it, or --report FILE")
    window = baseline.window
    if window < MIN_WINDOW:
        raise LampeError(
            f"the model's window is {window} tokens; one below {MIN_WINDOW} is too short to "
            "calibrate on"
        )
    if resume and max_length is None:
        max_length = longest_length(report_path)  # neither budget nor speed may change the ladder
    longest = max_length or 4 * window
    least = window + tail_of(window)
    if longest < least:
        raise UsageError(
            f"--max-length is {longest:,} and the model's window {window:,}; give at least "
            f"{least:,}, better {2 * window:,}"
        )
    text = "\n\n".join(document.text for document in documents)
    config = dataclasses.replace(
        default_config(window), context_length=max(4 * window, padded(longest, PAD))
    )
    options: dict[str, Any] = {}
    if threads is not None:
        options = {"n_threads": threads, "n_threads_batch": threads}
    probe = LampeLlama(model, lampe=config, n_ctx=2 * PROBE, **options)
    try:
        tokens = probe.tokenize(text.encode())
        rate = _rate(probe, tokens)
        begin = beginning(probe._model)
    finally:
        probe.close()

    longest = _longest(longest, len(tokens), window, rate, budget, max_length is not None)
    lengths = ladder(window, longest)
    seconds = reading_seconds(longest, window, rate)
    task = Task(model_fingerprint(model), text_fingerprint(text), lengths, tail_of(window))
    report = Report(task, model.name, [document.name for document in documents], window)
    if resume:
        report.readings, report.seconds = load_readings(report_path, task)
    if on_outlook is not None:
        left = max(1, READINGS - len(report.readings))
        on_outlook(Outlook(lengths, left, seconds, left * seconds if budget is None
                           else min(budget, left * seconds)))
    clock = Clock(None if budget is None else start + budget, seconds)
    llm = LampeLlama(model, lampe=config, n_ctx=longest, **options)
    try:
        segments = {
            FITTED: tokens[:longest],
            HELD_OUT: excerpt(tokens, longest, 2 * longest, begin),
        }
        work = Calibration(llm, report, segments, report_path, clock, on_tokens, on_stage)
        calibrate(work, baseline, config)
    finally:
        llm.close()
    return report


def ladder(window: int, longest: int) -> tuple[int, ...]:
    """Lengths inside and beyond the window, up to the longest, which is one of them."""
    inside = {int(x * window) for x in LADDER if x * window < longest}
    return tuple(sorted({*inside, longest}))


def tail_of(window: int) -> int:
    """Tokens before each length whose loss counts: no more than a quarter of the ladder's steps."""
    return min(TAIL, window // 4)


def reading_seconds(length: int, window: int, tokens_per_second: float) -> float:
    """About how long reading takes: attention grows with the length, all else does not.

    The share of attention at one window of context is a third on SmolLM2, where it was measured;
    larger models have less of it.
    """
    return length / tokens_per_second * (1 + length / window / 6)


def _rate(llm: LampeLlama, tokens: list[int]) -> float:
    """Tokens per second of a short text, once the weights are in memory."""
    if len(tokens) < PROBE:
        raise LampeError(
            f"the text has {len(tokens)} tokens; give a book's worth, at least two windows beyond "
            "the training window"
        )
    llm.eval(tokens[:16])
    llm.reset()
    start = time.monotonic()
    llm.eval(tokens[:PROBE])
    return PROBE / (time.monotonic() - start)


def _longest(
    wanted: int, n_tokens: int, window: int, rate: float, budget: float | None, given: bool
) -> int:
    """The end of the ladder that text and budget allow."""
    half = n_tokens // 2
    if half < wanted:
        if given or half < 2 * window:
            least = wanted if given else 2 * window
            raise LampeError(
                f"the text has {n_tokens:,} tokens, and calibrating up to {least:,} takes twice "
                "as many, half of them to decide; give more text"
                + (f", or --max-length {half}" if half >= window + tail_of(window) else "")
            )
        wanted = half // window * window
    while (
        not given
        and budget is not None
        and wanted > 2 * window
        and READINGS * reading_seconds(wanted, window, rate) > budget
    ):
        wanted -= window
    return wanted if given else max(wanted, math.ceil(1.25 * window))
