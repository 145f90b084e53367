"""Why LaMPE works: attention beyond the window against attention at the trained length.

Two figures of the attention perspective (method: section 5), measured on the running model: the
uncertainty of attention rows, and the pattern of their mass by distance.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..backend.vocabulary import beginning, excerpt, read_tokens
from ..container.format import padded
from ..container.meter import Meter, OnProgress
from ..conversation.session import PAD
from ..errors import LampeError, UsageError
from ..evaluate import perplexity
from ..evaluate.perplexity import FOR_LENGTH, Setting, model_rope, setting
from ..method.config import LampeConfig
from ..model.architectures import slides
from ..model.choose import ModelFile, read_file
from . import stats
from .passkey import MAX_ANSWER, Trial, expected_tokens, run_trials
from .reader import PrefixModel, Reader, Rows

LAMPE, ROPE, TRAINED = "lampe", "rope", "trained"
METHODS = tuple(each for each in perplexity.METHODS if each != "truncate")  # that is "trained"
SPAN = 256  # the queries lie in the last tokens, this many
DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Reading:
    """Attention of the queries at the end of one input, under one kind of positions.

    method      one of METHODS, or "trained": plain RoPE given only the input's last tokens, as
                many as the trained length
    length      tokens of the input
    tokens      tokens that were read of it, the last ones
    uncertainty   entropy, nats, mean over layers, heads and queries
    entropy     nats, mean over the queries: [layer][head]
    pattern     attention mass on the first token read, then by distance (Report.distances): mean
                over layers, heads and queries
    divergence  Jensen-Shannon divergence of the pattern to that of "trained" at the same length,
                bits (logarithms to base 2, 0 ... 1): computed per layer and head, then averaged
    divergence_by_layer   the same, per layer
    """

    method: str
    length: int
    tokens: int
    uncertainty: float
    entropy: list[list[float]]
    pattern: list[float]
    divergence: float
    divergence_by_layer: list[float]


@dataclass(frozen=True)
class Report:
    """What `measure` found.

    distances   first distance of each bin of the patterns, which end where the next begins
    queries     distance of each query from the input's end, tokens
    trials      the passkey trials, if they were asked for
    """

    model: str
    window: int
    trained_length: int
    queries: list[int]
    distances: list[int]
    readings: list[Reading]
    trials: list[Trial]


@dataclass(frozen=True)
class _Measured:
    entropy: stats.Array  # [n_layer, n_head]
    pattern: stats.Array  # [n_layer, n_head, 1 + n_bins]


def measure(
    model: str | os.PathLike[str],
    text: str,
    lengths: Sequence[int],
    *,
    methods: Sequence[str] = (ROPE, LAMPE),
    n_queries: int = 16,
    trained_length: int | None = None,
    passkey: bool = False,
    depths: Sequence[float] = DEPTHS,
    seed: int = 0,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Attention over a text's first tokens at several lengths, LaMPE against plain RoPE.

    methods         what to look at, beside "trained"
    n_queries       spread evenly over the last 256 tokens (less where an input is shorter)
    trained_length  what "trained" reads: the window, or less
    passkey         plant a key at `depths` (0 ... 1) of the text and ask for it, at each length

    Raises UsageError for values that make no sense, LampeError where the text is too short or
    the model is refused.
    """
    file = read_file(model)
    config, name = file.config, file.path.name
    if slides(file.info.architecture, file.info.values):
        raise LampeError(
            f"{name} has layers that see a sliding window only, whose attention cannot be "
            "looked at yet; take another model"
        )
    lengths = sorted(set(lengths))
    trained = config.window if trained_length is None else trained_length
    offsets = _offsets(lengths, trained, config, n_queries)
    edges = stats.bin_edges(max(lengths))
    rows = Rows(edges)
    jobs = _jobs(methods, lengths)
    work = Meter(_expected(jobs, trained, config, depths if passkey else ()), on_progress)
    room = max(lengths) + (MAX_ANSWER if passkey else 0)
    rope = model_rope(file)
    options: dict[str, Any] = {}
    if threads is not None:
        options = {"n_threads": threads, "n_threads_batch": threads}

    found: dict[tuple[str, int], _Measured] = {}
    trials: list[Trial] = []
    # one after the other: two models at once would need twice the memory
    for method, group in jobs:
        how = setting(ROPE if method == TRAINED else method, config, max(group), **rope)
        with Reader(_open(file, how, room, options), rows, work) as reader:
            tokens = read_tokens(reader.llm, text, max(lengths), "--lengths")
            for length in group:
                first = max(0, length - trained) if method == TRAINED else 0
                if method == TRAINED and not first and (ROPE, length) in found:
                    found[method, length] = found[ROPE, length]
                else:
                    piece = excerpt(tokens, first, length, beginning(reader.llm._model))
                    found[method, length] = _attend(reader, piece, offsets)
            if passkey and method != TRAINED:
                trials += run_trials(reader, method, text, group, depths, seed)
    return Report(
        model=name,
        window=config.window,
        trained_length=trained,
        queries=offsets,
        distances=edges.tolist(),
        readings=[
            _reading(method, length, min(length, trained) if method == TRAINED else length,
                     found[method, length], found[TRAINED, length])
            for length in lengths
            for method in dict.fromkeys((TRAINED, *methods))
        ],
        trials=trials,
    )


def _attend(reader: Reader, tokens: list[int], offsets: list[int]) -> _Measured:
    reader.read(tokens, [len(tokens) - offset for offset in offsets])
    return _Measured(reader.rows.mean_entropy(), reader.rows.mean_pattern())


def _jobs(methods: Sequence[str], lengths: Sequence[int]) -> list[tuple[str, list[int]]]:
    """(method, lengths of one opening of the model) in order; "trained" follows plain RoPE."""
    for method in methods:
        if method not in METHODS:
            raise UsageError(f"there is no method {method!r}; it is one of {', '.join(METHODS)}")
    jobs: list[tuple[str, list[int]]] = []
    first = [ROPE] if ROPE in methods else []  # "trained" may have its readings
    for method in dict.fromkeys((*first, TRAINED, *methods)):
        if method in FOR_LENGTH:
            jobs += [(method, [length]) for length in lengths]
        else:
            jobs.append((method, list(lengths)))
    return jobs


def _open(model: ModelFile, how: Setting, room: int, options: dict[str, Any]) -> PrefixModel:
    least = max(how.lampe.context_length, padded(room, PAD))
    lampe = dataclasses.replace(how.lampe, context_length=least)
    return PrefixModel(model, lampe=lampe, n_ctx=room, **how.options, **options)


def _expected(
    jobs: Sequence[tuple[str, Sequence[int]]], trained: int, config: LampeConfig,
    depths: Sequence[float],
) -> int:
    """Tokens to read, nearly: the shorter inputs are the beginnings of the longer ones."""
    total = 0
    for method, lengths in jobs:
        if method == TRAINED:
            total += trained * sum(length > trained for length in lengths)
            continue
        kept = method == ROPE or config.length_policy == "causal"
        total += lengths[-1] + SPAN * (len(lengths) - 1) if kept else sum(lengths)
        total += expected_tokens(lengths, depths) if depths else 0
    return total


def _reading(
    method: str, length: int, tokens: int, measured: _Measured, trained: _Measured
) -> Reading:
    divergence = stats.jensen_shannon(measured.pattern, trained.pattern)  # [n_layer, n_head]
    return Reading(
        method=method,
        length=length,
        tokens=tokens,
        uncertainty=float(measured.entropy.mean()),
        entropy=measured.entropy.tolist(),
        pattern=measured.pattern.mean(axis=(0, 1)).tolist(),
        divergence=float(divergence.mean()),
        divergence_by_layer=divergence.mean(axis=1).tolist(),
    )


def _offsets(
    lengths: Sequence[int], trained: int, config: LampeConfig, n_queries: int
) -> list[int]:
    """Distances of the queries from the end, the farthest first, the last token being 1."""
    if not lengths or lengths[0] < 2:
        raise UsageError("--lengths must be numbers of tokens, each at least 2, as 2048,8192")
    if not 2 <= trained <= config.window:
        raise UsageError(
            f"--trained-length is {trained:,}; it must be 2 to {config.window:,} tokens, "
            "the window that the model was trained with"
        )
    span = min(SPAN, min(lengths[0], trained) // 2)
    if not 1 <= n_queries <= span:
        raise UsageError(
            f"--queries is {n_queries}; inputs of {min(lengths[0], trained):,} tokens have room "
            f"for 1 to {span}"
        )
    step = span / n_queries
    return [round(1 + step * k) for k in range(n_queries)][::-1]
