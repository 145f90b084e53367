"""Recall: what having read a text is worth, by how far back it stands (method, section 7).

A text is read once. Excerpts of it are then fed again, behind a separator, and so are fresh ones
that were never read: what the far text is worth is the difference. Cached keys carry no positions,
so one reading serves every map: the map is the question's choice.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..backend.vocabulary import beginning, excerpt, read_tokens, vocabulary
from ..container.format import padded
from ..container.meter import Meter, OnProgress
from ..conversation.session import PAD
from ..errors import LampeError, UsageError
from ..method.config import LampeConfig
from ..method.layers import LayerMap
from ..model.choose import ModelFile, read_file
from .perplexity import negative_log_likelihood, setting

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

CUE = 16  # tokens of an excerpt that are given
SCORED = 48  # tokens after them that are predicted
EXCERPTS = 48  # of the text, and as many fresh ones
METHODS = ("lampe", "rope", "selfextend", "jetlong", "rerope")  # what positions alone make
SEPARATOR = "\n\n\n"
QUARTERS = 4



@dataclass(frozen=True)
class Loss:
    """Mean nats a token over excerpts, and its standard error over them."""

    mean: float
    error: float


@dataclass(frozen=True)
class Recall:
    """What one map made of one reading; all losses in nats a token.

    name        of the map, as it was asked for
    parameters  what it was
    length      tokens of the text that were read
    recall      loss on excerpts of the text, fed again
    by_depth    the same by quarter of the text, far to near
    unseen      loss on excerpts that were not read
    excerpts    the loss of each excerpt, far to near; `fresh` the same of the others. Two maps
                have the same excerpts, so that their difference has an error of its own: versus()
    seconds     of reading the text (0: another map's reading served) and of asking
    """

    name: str
    parameters: dict[str, Any]
    length: int
    recall: Loss
    by_depth: list[Loss]
    unseen: Loss
    excerpts: list[float]
    fresh: list[float]
    seconds_reading: float
    seconds_asking: float
    path: str


def loss(values: Sequence[float] | npt.NDArray[np.float64]) -> Loss:
    """Mean and standard error; the error of a single value is not known (nan)."""
    found = np.asarray(values, dtype=np.float64)
    error = float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else float("nan")
    return Loss(float(found.mean()), error)


def versus(one: Recall, other: Recall) -> tuple[Loss, Loss]:
    """How much more `one` loses than `other`, excerpt by excerpt: of recall, and of the unseen."""
    return (loss(np.subtract(one.excerpts, other.excerpts)),
            loss(np.subtract(one.fresh, other.fresh)))


def starts_of(length: int, count: int, size: int = CUE + SCORED) -> list[int]:
    """Where `count` excerpts of `size` tokens begin, spread evenly through `length` tokens."""
    return [int((length - size) * (i + 0.5) / count) for i in range(count)]


def map_named(name: str, config: LampeConfig, length: int) -> LampeConfig:
    """The configuration that a name means for inputs of `length` tokens.

    name    one of METHODS; with values: "L/s1" is LaMPE with m = L at every length and that local
            window, "jetlong:2048" a neighbour with that one; "L/s1+layers:L/s1", such as
            "6144/1024+10-14,25-29:1024/512", has another map in these layers, once more with each
            "+"; a map without is the same in all layers
    config  the model's, whose window, tail and policy stay
    """
    method, _, value = name.partition(":")
    if method in METHODS and (not value or method not in ("lampe", "rope")):
        local = _whole(name, value) if value else None
        return setting(method, config, length, local_window=local).lampe
    base, *layers = name.split("+")
    mapping, _, local_window = base.partition("/")
    most, local = _whole(name, mapping), _whole(name, local_window)
    tail = max(0, min(config.tail_window, most - local - 1))
    return dataclasses.replace(
        config, max_mapping_length=float(most), local_window=local, tail_window=tail, slope=0.0,
        offset=40.0, short_length=0, short_mapping_length=0,
        context_length=max(config.context_length, padded(length, PAD)),
        provenance=f"L = {most}, s1 = {local}",
        layer_maps=tuple(LayerMap.parse(each, config.tail_window) for each in layers),
    ).validate()


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise UsageError(
            f"there is no map {name!r}; it is one of {', '.join(METHODS)}, a neighbour with its "
            "local window (jetlong:2048), or LaMPE's L/s1 (4096/1024), with other values for some "
            "layers behind it (6144/1024+10-14,25-29:1024/512)"
        )
    return int(text)


def recall(
    model: str | os.PathLike[str],
    text: str,
    length: int,
    *,
    methods: Sequence[str] = ("lampe",),
    read_with: str = "lampe",
    reread: bool = False,
    excerpts: int = EXCERPTS,
    fresh: int | None = None,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
    on_found: Callable[[Recall], None] = lambda found: None,
) -> list[Recall]:
    """Recall loss of a text's first `length` tokens under each of `methods`, and unseen loss.

    methods      names of maps, as map_named() has them
    read_with    the map that the text is read under, once for all
    reread       read it anew under each map instead
    excerpts     of the text, spread evenly
    fresh        excerpts of what follows the text; a quarter as many, at least 2, by default: maps
                 differ less there
    on_progress  called with (tokens, all of them), readings and questions
    on_found     called with each result as it comes

    No template and no tokenizer is assumed. Raises LampeError where the text is too short (it
    needs `length` tokens and 64 more for each fresh excerpt) or the model is refused, UsageError
    for a name or a number that makes no sense.

    >>> from lampe_gguf.evaluate.recall import recall
    >>> book = open("book.txt", encoding="utf-8").read()
    >>> near, = recall("model.gguf", book, 256, methods=["lampe"], excerpts=2)
    >>> near.recall.mean < near.unseen.mean
    True
    """
    fresh = max(2, excerpts // 4) if fresh is None else fresh
    if min(excerpts, fresh) < 2:
        raise UsageError(f"{min(excerpts, fresh)} excerpts tell no error; give at least 2")
    if length < 2 * (CUE + SCORED):
        raise UsageError(f"the length is {length}; give at least {2 * (CUE + SCORED)} tokens")
    file = read_file(model)
    room = length + 64 + CUE + SCORED
    named = {name: map_named(name, file.config, room) for name in methods}
    reading = map_named(read_with, file.config, room)
    with vocabulary(file) as vocab:
        tokens = read_tokens(vocab, text, length + fresh * (CUE + SCORED))
        read = excerpt(tokens, 0, length, beginning(vocab))
        between = vocab.tokenize(SEPARATOR.encode(), False, False)
    size = CUE + SCORED
    old = [tokens[start : start + size] for start in starts_of(length, excerpts)]
    new = [tokens[length + i * size : length + (i + 1) * size] for i in range(fresh)]
    asked = (excerpts + fresh) * (len(between) + size)
    total = length * (len(named) if reread else 1) + asked * len(named)
    meter = Meter(total, on_progress)
    found: list[Recall] = []
    with _open(file, reading, room, threads) as llm:
        seconds = 0.0
        for i, (name, config) in enumerate(named.items()):
            if reread or i == 0:
                llm.set_config(config if reread else reading)
                seconds = _read(llm, read, meter)
            llm.set_config(config)
            start = time.monotonic()
            losses = [_ask(llm, length, between, each, meter) for each in (*old, *new)]
            each = _result(name, config, length, losses, excerpts)
            found.append(dataclasses.replace(
                each, seconds_reading=seconds, seconds_asking=time.monotonic() - start,
                path=llm.path,
            ))
            seconds = 0.0
            on_found(found[-1])
    return found


def _open(file: ModelFile, config: LampeConfig, room: int, threads: int | None) -> LampeLlama:
    from ..backend.llama import LampeLlama

    options: dict[str, Any] = {}
    if threads is not None:
        options |= {"n_threads": threads, "n_threads_batch": threads}
    return LampeLlama(file, lampe=config, n_ctx=padded(room, PAD), **options)


def _read(llm: LampeLlama, tokens: list[int], meter: Meter) -> float:
    start = time.monotonic()
    llm.reset()
    before = meter.done
    llm.progress = lambda done, total: meter.advance(before + done - meter.done)
    try:
        llm.eval(tokens)
    finally:
        llm.progress = None
    return time.monotonic() - start


def _ask(
    llm: LampeLlama, length: int, between: list[int], tokens: list[int], meter: Meter
) -> float:
    """Mean nats a token of an excerpt's scored tokens behind what was read, which stays."""
    fed = [*between, *tokens]
    first = len(between) + CUE - 1  # whose logits predict the first scored token
    values = np.empty(SCORED)
    llm.n_tokens = length  # what was asked before goes
    for start, logits in llm.read_logits(fed):
        lower, upper = max(start, first), min(start + len(logits), first + SCORED)
        if lower < upper:
            targets = np.array(fed[lower + 1 : upper + 1], dtype=np.int64)
            values[lower - first : upper - first] = negative_log_likelihood(
                logits[lower - start : upper - start], targets)
    meter.advance(len(fed))
    return float(values.mean())


def _result(
    name: str, config: LampeConfig, length: int, losses: list[float], count: int
) -> Recall:
    old, new = losses[:count], losses[count:]
    if not np.isfinite(losses).all():
        raise LampeError(f"the map {name} gives no finite loss; take another")
    names = ["method", "window", "local_window", "tail_window", "max_mapping_length", "slope",
             "offset", "attention_factor", "length_policy", "length_step", "group_size"]
    parts = np.array_split(np.array(old), min(QUARTERS, count))
    return Recall(
        name=name, parameters={each: getattr(config, each) for each in names}, length=length,
        recall=loss(old), by_depth=[loss(part) for part in parts], unseen=loss(new),
        excerpts=list(old), fresh=list(new), seconds_reading=0.0, seconds_asking=0.0, path="",
    )
