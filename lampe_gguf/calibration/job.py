"""One calibration from a file and a text to a report: what to read, how long it takes, go."""

from __future__ import annotations

import dataclasses
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
from ..evaluate.reading import ROOM, SIZE, Reading
from ..model.choose import choose_config, read_file, require_qualified
from ..model.presets import default_config
from .clock import Clock
from .objective import weighted
from .report import (
    FITTED,
    HELD_OUT,
    Report,
    Task,
    load_losses,
    model_fingerprint,
    saved_task,
    text_fingerprint,
)
from .run import Calibration, OnStage, carry_out

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

BUDGET = 1800.0  # seconds
PROBE = 256  # tokens that are read to see how fast the machine is
READINGS = 5  # of a whole calibration: the fitted text, and the other one under four maps
QUESTIONS = 20  # maps that are asked at each length, about
DEFAULT = (2.0, 1.5)  # windows: the longest length, the first that text and budget allow
LADDER = (1.5, 2.0, 3.0)  # windows: lengths before one beyond two windows
QUESTION = SIZE + 3  # tokens, about
EXCERPTS = ((48, 24), (24, 12), (12, 6))  # of what was read, and fresh ones: likewise
MIN_WINDOW = 2 * ROOM  # a length inside it leaves room for questions
LEAST_BEYOND = 1.25  # windows


@dataclasses.dataclass(frozen=True)
class Outlook:
    """What is about to be done; seconds are an estimate.

    lengths    tokens that are read; the first is inside the window
    excerpts   of what was read, and fresh ones, which every map is asked about at each length
    seconds_reading, seconds_asking   of reading the longest, and of asking under one map there
    seconds    of all
    """

    lengths: tuple[int, ...]
    excerpts: tuple[int, int]
    seconds_reading: float
    seconds_asking: float
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
    weights: Sequence[float] = (1.0, 1.0),
    threads: int | None = None,
    on_outlook: OnOutlook = lambda outlook: None,
    on_progress: OnProgress = lambda done, total: None,
    on_stage: OnStage = lambda stage: None,
) -> Report:
    """Find the LaMPE map by which a model makes most of a long text, and judge it on another part.

    text         long plain text (str), files of it (Path) or Documents, one after the other; the
                 first tokens are searched on, as many after them decide. None: Python's own
                 documentation; text of the kind that the model will read is better
    budget       seconds; None: as long as it takes
    max_length   the longest input, tokens; 2 windows by default, 1.5 where the text or the budget
                 is small
    report       a file to save the report in after every map
    resume       go on from what `report` holds
    weights      of recall loss and of unseen loss; (0, 1) is perplexity's view
    threads      of the processor; None: all
    on_outlook   called with an Outlook before the first reading
    on_progress  called with (tokens read, about all of them)
    on_stage     called with what is being looked for, in words

    One reading serves all maps of the search: excerpts are asked under each (method, section 7).
    The report's `config` is what to write (convert_gguf's `config`), its `reasons` say why; losses
    are in nats a token. Raises LampeError where the model is refused or the text too short,
    UsageError where the budget holds no calibration, the weights are none or `report` exists
    without `resume`. Ctrl-C leaves the report as far as it got.

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
    context_length = baseline.context_length
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
    objective = weighted(weights)
    saved = saved_task(report_path) if resume and report_path is not None else None
    least = int(LEAST_BEYOND * window)
    if max_length is not None and max_length < least:
        raise UsageError(
            f"--max-length is {max_length:,} and the model's window {window:,}; give at least "
            f"{least:,}, better {2 * window:,}"
        )
    documents = [python_documentation()] if text is None else as_documents(text)
    whole = "\n\n".join(document.text for document in documents)
    options: dict[str, Any] = {}
    if threads is not None:
        options = {"n_threads": threads, "n_threads_batch": threads}
    probe = LampeLlama(file, lampe=baseline, n_ctx=2 * PROBE, **options)
    try:
        tokens = probe.tokenize(whole.encode())
        rate = _rate(probe, tokens)
        begin = beginning(probe._model)
    finally:
        probe.close()

    if saved is None:
        lengths, excerpts = choose_size(len(tokens), window, rate, budget, max_length)
    else:  # neither budget nor speed may change what is gone on with
        lengths = saved.lengths if max_length is None else ladder(window, max_length)
        excerpts = saved.excerpts
    longest = lengths[-1]
    context = padded(longest + ROOM, PAD)
    baseline = dataclasses.replace(baseline, context_length=max(baseline.context_length, context))
    safe = dataclasses.replace(default_config(window), context_length=baseline.context_length)
    task = Task(model_fingerprint(file.path), text_fingerprint(whole), lengths, excerpts,
                baseline.effective())
    found = Report(task, file.path.name, [document.name for document in documents], window,
                   (objective.recall, objective.unseen))
    if resume and report_path is not None:
        found.losses, found.seconds = load_losses(report_path, task)
    reading, asking = reading_seconds(longest, window, rate), asking_seconds(
        sum(excerpts), longest, window, rate)
    seconds = all_seconds(lengths, excerpts, window, rate)
    on_outlook(Outlook(lengths, excerpts, reading, asking,
                       seconds if budget is None else min(budget, seconds)))
    done = 0
    left = READINGS * longest + sum(excerpts) * QUESTION * max(
        1, QUESTIONS * len(lengths) - len(found.losses))

    def on_tokens(count: int) -> None:
        nonlocal done
        done += count
        on_progress(done, max(done, left))

    clock = Clock(None if budget is None else start + budget, reading, asking)
    size = longest + excerpts[1] * SIZE
    texts = {FITTED: tokens[:size], HELD_OUT: excerpt(tokens, size, 2 * size, begin)}
    llm = LampeLlama(file, lampe=baseline, n_ctx=context, **options)
    try:
        work = Calibration(
            Reading(llm, on_tokens), found, texts, report_path, clock, baseline, on_stage)
        carry_out(work, safe, context_length)
    finally:
        llm.close()
    return found


def python_documentation() -> Document:
    """The text that every Python has."""
    from pydoc_data.topics import topics

    return Document("pydoc_data", "\n\n".join(topics[name] for name in sorted(topics)))


def ladder(window: int, longest: int) -> tuple[int, ...]:
    """One length inside the window, questions included, and those beyond it, ascending."""
    between = {int(x * window) for x in LADDER if longest > 2 * window and x * window < longest}
    return tuple(sorted({window - ROOM, *between, longest}))


def reading_seconds(length: int, window: int, tokens_per_second: float) -> float:
    """About how long reading takes: attention grows with the length, all else does not.

    The share of attention at one window of context is a third on SmolLM2, where it was measured;
    larger models have less of it.
    """
    return length / tokens_per_second * (1 + length / window / 6)


def asking_seconds(excerpts: int, length: int, window: int, tokens_per_second: float) -> float:
    """About how long asking about so many excerpts takes behind a text."""
    return excerpts * QUESTION / tokens_per_second * (1 + length / window / 3)


def all_seconds(
    lengths: Sequence[int], excerpts: tuple[int, int], window: int, tokens_per_second: float
) -> float:
    """About how long a whole calibration takes."""
    return READINGS * reading_seconds(lengths[-1], window, tokens_per_second) + QUESTIONS * sum(
        asking_seconds(sum(excerpts), length, window, tokens_per_second) for length in lengths)


def choose_size(
    n_tokens: int, window: int, rate: float, budget: float | None, max_length: int | None
) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Lengths and numbers of excerpts: the most that the text has and the budget holds.

    Fewer excerpts come before a shorter text. LampeError where the text is too short for any.
    """
    wanted = [max_length] if max_length else [int(x * window) for x in DEFAULT]
    sizes = [(ladder(window, longest), excerpts) for longest in wanted for excerpts in EXCERPTS]
    found = [size for size in sizes if _tokens(*size) <= n_tokens]
    if not found:
        most = n_tokens // 2 - EXCERPTS[-1][1] * SIZE
        raise LampeError(
            f"the text has {n_tokens:,} tokens, and calibrating up to {wanted[-1]:,} takes "
            f"{_tokens(*sizes[-1]):,}, half of them to decide; give more text"
            + (f", or --max-length {most}" if most >= LEAST_BEYOND * window else "")
        )
    for size in found:
        if budget is None or all_seconds(*size, window, rate) <= budget:
            return size
    return found[-1]


def _tokens(lengths: Sequence[int], excerpts: tuple[int, int]) -> int:
    """Tokens that both texts take."""
    return 2 * (lengths[-1] + excerpts[1] * SIZE)


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
