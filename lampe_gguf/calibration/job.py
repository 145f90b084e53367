"""One calibration from a file and a text to a report: what to read, how long it takes, go."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backend.vocabulary import beginning, excerpt
from ..container import paths
from ..container.format import padded
from ..conversation.documents import Document, Text, as_documents
from ..conversation.session import PAD
from ..errors import LampeError, UsageError
from ..model.choose import choose_config, read_file, require_qualified
from ..model.presets import default_config
from .report import Report, Task, load_readings, longest_length, model_fingerprint, text_fingerprint
from .run import FITTED, HELD_OUT, Calibration, Clock, OnStage, carry_out

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

BUDGET = 1800.0  # seconds
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
OnProgress = Callable[[int, int], None]  # tokens read so far, about all of them


def calibrate(
    model: str | os.PathLike[str],
    text: Text | Sequence[Text] | None = None,
    *,
    budget: float | None = BUDGET,
    max_length: int | None = None,
    report: str | os.PathLike[str] | None = None,
    resume: bool = False,
    threads: int | None = None,
    on_outlook: OnOutlook = lambda outlook: None,
    on_progress: OnProgress = lambda done, total: None,
    on_stage: OnStage = lambda stage: None,
) -> Report:
    """Find LaMPE's constants for a model, in readings of two stretches of a text.

    text         long plain text (str), files of it (Path) or Documents, one after the other; the
                 first tokens are fitted on, as many after them decide. None: Python's own
                 documentation; text of the kind that the model will read is better
    budget       seconds; None: as long as it takes
    max_length   end of the ladder of lengths, tokens; chosen from text and budget by default
    report       a file to save the report in after every reading
    resume       go on from what `report` holds
    threads      of the processor; None: all
    on_outlook   called with an Outlook before the first reading
    on_progress  called with (tokens read, about all of them)
    on_stage     called with what is being looked for, in words

    The report's `config` is what to write (convert_gguf's `config`), its `reasons` say why; losses
    are in nats a token. Raises LampeError where the model is refused or the text too short,
    UsageError where the budget holds no calibration or `report` exists without `resume`. Ctrl-C
    leaves the report as far as it got. How constants come about: method, sections 1 and 7.

    >>> from pathlib import Path
    >>> from lampe_gguf import calibrate, convert_gguf
    >>> report = calibrate("model.gguf", Path("book.txt"), budget=600)
    >>> report.complete, len(report.reasons) > 0
    (True, True)
    >>> convert_gguf("model.gguf", "calibrated.gguf", config=report.config).outputs[0].name
    'calibrated.gguf'
    """
    from ..backend.llama import LampeLlama

    start = time.monotonic()
    file = read_file(model)
    require_qualified(file.info)
    baseline = choose_config(file.info)
    report_path = None if report is None else Path(report)
    if report_path is None and resume:
        raise UsageError("there is no report to go on from; give the file that an earlier run made")
    if report_path is not None and paths.exists(report_path) and not resume:
        raise UsageError(f"{report_path} exists; add --resume to go on from it, or --report FILE")
    window = baseline.window
    if window < MIN_WINDOW:
        raise LampeError(
            f"the model's window is {window} tokens; one below {MIN_WINDOW} is too short to "
            "calibrate on"
        )
    if resume and report_path is not None and max_length is None:
        max_length = longest_length(report_path)  # neither budget nor speed may change the ladder
    longest = max_length or 4 * window
    least = window + tail_of(window)
    if longest < least:
        raise UsageError(
            f"--max-length is {longest:,} and the model's window {window:,}; give at least "
            f"{least:,}, better {2 * window:,}"
        )
    documents = [python_documentation()] if text is None else as_documents(text)
    whole = "\n\n".join(document.text for document in documents)
    config = dataclasses.replace(
        default_config(window), context_length=max(4 * window, padded(longest, PAD))
    )
    options: dict[str, Any] = {}
    if threads is not None:
        options = {"n_threads": threads, "n_threads_batch": threads}
    probe = LampeLlama(file, lampe=config, n_ctx=2 * PROBE, **options)
    try:
        tokens = probe.tokenize(whole.encode())
        rate = _rate(probe, tokens)
        begin = beginning(probe._model)
    finally:
        probe.close()

    longest = _longest(longest, len(tokens), window, rate, budget, max_length is not None)
    lengths = ladder(window, longest)
    seconds = reading_seconds(longest, window, rate)
    task = Task(model_fingerprint(file.path), text_fingerprint(whole), lengths, tail_of(window))
    found = Report(task, file.path.name, [document.name for document in documents], window)
    if resume and report_path is not None:
        found.readings, found.seconds = load_readings(report_path, task)
    left = max(1, READINGS - len(found.readings))
    on_outlook(Outlook(lengths, left, seconds, left * seconds if budget is None
                       else min(budget, left * seconds)))
    done = 0

    def on_tokens(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, max(done, left * longest))

    clock = Clock(None if budget is None else start + budget, seconds)
    llm = LampeLlama(file, lampe=config, n_ctx=longest, **options)
    try:
        segments = {
            FITTED: tokens[:longest],
            HELD_OUT: excerpt(tokens, longest, 2 * longest, begin),
        }
        work = Calibration(llm, found, segments, report_path, clock, on_tokens, on_stage)
        carry_out(work, baseline, config)
    finally:
        llm.close()
    return found


def python_documentation() -> Document:
    """The text that every Python has."""
    from pydoc_data.topics import topics

    return Document("pydoc_data", "\n\n".join(topics[name] for name in sorted(topics)))


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
