"""Recall: what having read a text is worth, by how far back it stands (method, section 7).

A text is read once. Excerpts of it are then fed again, behind a separator, and so are fresh ones
that were never read: what the far text is worth is the difference. Cached keys carry no positions,
so one reading serves every map: the map is the question's choice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend.vocabulary import beginning, excerpt, read_tokens, vocabulary
from ..container.format import padded
from ..container.meter import Meter, OnProgress
from ..conversation.session import PAD
from ..errors import LampeError, UsageError
from ..method.config import LampeConfig
from ..model.choose import ModelFile, read_file
from .perplexity import model_rope, setting
from .reading import ROOM, SIZE, FloatArray, Reading, excerpts_of, fresh_ones

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

# Of the text. They tell 0.05 nats apart between LaMPE maps: twice the error of a paired difference,
# whose deviation is 0.10 to 0.21 an excerpt on SmolLM2 (0.55 to 0.67 against other methods).
EXCERPTS = 64
METHODS = ("lampe", "rope", "selfextend", "jetlong", "rerope")  # what positions alone make
ALONE = ("truncate", "linear", "yarn", "ntk")  # need a reading of their own
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
    seconds     of reading the text, as far as another map's reading did not serve, and of asking
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


def loss(values: Sequence[float] | FloatArray) -> Loss:
    """Mean and standard error; the error of a single value is not known (nan)."""
    found = np.asarray(values, dtype=np.float64)
    error = float(found.std(ddof=1) / np.sqrt(len(found))) if len(found) > 1 else float("nan")
    return Loss(float(found.mean()), error)


def versus(one: Recall, other: Recall) -> tuple[Loss, Loss]:
    """How much more `one` loses than `other`, excerpt by excerpt: of recall, and of the unseen."""
    return (loss(np.subtract(one.excerpts, other.excerpts)),
            loss(np.subtract(one.fresh, other.fresh)))


def map_named(name: str, config: LampeConfig, length: int) -> LampeConfig:
    """The configuration that a name means for inputs of `length` tokens.

    name    one of METHODS; with values: "L/s1" is LaMPE with m = L at every length and that local
            window, "jetlong:2048" a neighbour with that one. "@F" behind any of them, such as
            "lampe@1.04", has the attention factor F
    config  the model's, whose window, tail and policy stay
    """
    name, at, factor = name.partition("@")
    if at:
        return dataclasses.replace(
            map_named(name, config, length), attention_factor=_factor(name, factor)).validate()
    method, _, value = name.partition(":")
    if method in METHODS and (not value or method not in ("lampe", "rope")):
        local = _whole(name, value) if value else None
        return setting(method, config, length, local_window=local).lampe
    mapping, _, local_window = name.partition("/")
    most, local = _whole(name, mapping), _whole(name, local_window)
    tail = max(0, min(config.tail_window, most - local - 1))
    return dataclasses.replace(
        config, max_mapping_length=float(most), local_window=local, tail_window=tail, slope=0.0,
        offset=40.0, short_length=0, short_mapping_length=0,
        context_length=max(config.context_length, padded(length, PAD)),
        provenance=f"L = {most}, s1 = {local}",
    ).validate()


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise UsageError(
            f"there is no map {name!r}; it is one of {', '.join(METHODS + ALONE)}, a neighbour "
            "with its local window (jetlong:2048), or LaMPE's L/s1 (4096/1024); behind any "
            "of these may stand an attention factor (lampe@1.04)"
        )
    return int(text)


def _factor(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no attention factor; give a number behind the map, as {name}@1.04"
        ) from None


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

    methods      names of maps, as map_named() has them, and of ALONE: what scales frequencies, and
                 truncation (plain RoPE given the last window), which each read for themselves
    read_with    the map that the text is read under, once for all maps
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
    if length < 2 * SIZE:
        raise UsageError(f"the length is {length}; give at least {2 * SIZE} tokens")
    file = read_file(model)
    room = length + ROOM
    ways = [_way(name, file, length, room) for name in methods]
    read_under = map_named(read_with, file.config, room)
    with vocabulary(file) as vocab:
        tokens = read_tokens(
            vocab, text, length, behind=fresh * SIZE, what="for excerpts that are not read",
            least=2 * SIZE, fewer=", or fewer --excerpts" if fresh > 2 else "")
        begin = beginning(vocab)
    old, new = excerpts_of(tokens, length, excerpts), fresh_ones(tokens, length, fresh)
    readings = [way.length for way in ways if reread or way.alone]
    readings += [length] * any(not (reread or way.alone) for way in ways)
    meter = Meter(0, on_progress)
    found: list[Recall] = []
    with contextlib.ExitStack() as opened:
        shared: Reading | None = None
        for way in ways:
            with contextlib.ExitStack() as own:
                if way.alone:
                    llm = own.enter_context(_open(file, way.config, room, threads, way.options))
                    reading = Reading(llm, meter.advance)
                else:
                    if shared is None:
                        llm = opened.enter_context(_open(file, read_under, room, threads))
                        shared = Reading(llm, meter.advance)
                    reading = shared
                asked = (excerpts + fresh) * reading.question
                meter.total = sum(readings) + asked * len(ways)
                seconds = reading.read(
                    excerpt(tokens, length - way.length, length, begin),
                    way.config if way.alone or reread else read_under)
                start = time.monotonic()
                losses = reading.losses(way.config, old, new)
                found.append(dataclasses.replace(
                    _result(way, length, *losses), seconds_reading=seconds,
                    seconds_asking=time.monotonic() - start, path=reading.llm.path,
                ))
            on_found(found[-1])
    return found


@dataclass(frozen=True)
class _Way:
    """How a method reads and asks: under a map of one reading that others share, or alone.

    options  of the context: frequencies that are scaled are so in the keys, too
    length   tokens that are read, the last ones of the text
    """

    name: str
    config: LampeConfig
    options: dict[str, Any]
    length: int
    alone: bool


def _way(name: str, file: ModelFile, length: int, room: int) -> _Way:
    if name not in ALONE:
        return _Way(name, map_named(name, file.config, room), {}, length, False)
    how = setting(name, file.config, room, **model_rope(file))
    # what is asked behind the text stays inside the window, too
    read = min(length, file.config.window - (room - length)) if name == "truncate" else length
    return _Way(name, how.lampe, how.options, read, True)


def _open(
    file: ModelFile, config: LampeConfig, room: int, threads: int | None,
    options: dict[str, Any] | None = None,
) -> LampeLlama:
    from ..backend.llama import LampeLlama

    options = dict(options or {})
    if threads is not None:
        options |= {"n_threads": threads, "n_threads_batch": threads}
    return LampeLlama(file, lampe=config, n_ctx=padded(room, PAD), **options)


def _result(way: _Way, length: int, old: FloatArray, new: FloatArray) -> Recall:
    if not np.isfinite(np.concatenate([old, new])).all():
        raise LampeError(f"the map {way.name} gives no finite loss; take another")
    names = ["method", "window", "local_window", "tail_window", "max_mapping_length", "slope",
             "offset", "attention_factor", "length_policy", "length_step", "group_size"]
    parameters = {each: getattr(way.config, each) for each in names}
    if way.alone:
        parameters |= {"method": way.name, "read": way.length, **way.options}
    parts = np.array_split(old, min(QUARTERS, len(old)))
    return Recall(
        name=way.name, parameters=parameters, length=length,
        recall=loss(old), by_depth=[loss(part) for part in parts], unseen=loss(new),
        excerpts=old.tolist(), fresh=new.tolist(), seconds_reading=0.0, seconds_asking=0.0, path="",
    )
