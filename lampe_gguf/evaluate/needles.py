"""Facts found: twenty of one kind spread through a real text, by where they stand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..container.meter import Meter, OnProgress
from .asking import Observer
from .suite import Suite
from .tasks.intervals import wilson
from .tasks.item import Count, Item
from .tasks.journal import Result
from .tasks.needles import FACTS
from .tasks.needles import needles as hidden


@dataclass(frozen=True)
class Needles:
    """What one method found.

    parameters  what the method was run with
    length      tokens of the text with its facts and of the longest question
    places      where each fact stands, 0 (the text's beginning) ... 1; `found` whether it was
                found, `answers` what the model said instead of its number, or with it
    low, high   95 % interval of the share that was found (Wilson's)
    """

    method: str
    parameters: dict[str, Any]
    length: int
    places: list[float]
    found: list[bool]
    answers: list[str]
    low: float
    high: float


def needles(
    model: str | os.PathLike[str],
    text: str,
    length: int,
    *,
    methods: Sequence[str] = ("lampe", "truncate"),
    read_with: str | None = "lampe",
    facts: int = FACTS,
    seed: int = 0,
    threads: int | None = None,
    resume: Path | None = None,
    on_progress: OnProgress | None = None,
    on_result: Callable[[Result], None] = lambda result: None,
) -> list[Needles]:
    """Hide `facts` sentences in a text's first `length` tokens, and ask for each of them.

    methods      as suite.method_setting() has them; the likeliest continuation counts
    read_with    the method that the text is read with, once for all that are maps of positions:
                 cached keys carry none. None: each reads for itself, as the others always do
    seed         draws names and numbers anew
    resume       a journal of answers, which are not asked for again
    on_progress  called with (tokens, all of them, as far as is known), readings and answers
    on_result    called with each answer as it comes

    No template is used: the question is the beginning of the sentence. Raises LampeError where
    the text is too short or the model is refused, UsageError for a method that there is not.

    >>> from lampe_gguf.evaluate.needles import needles
    >>> book = open("book.txt", encoding="utf-8").read()
    >>> near, = needles("model.gguf", book, 256, methods=["lampe"], facts=2)
    >>> len(near.places), sum(near.found) <= 2
    (2, True)
    """
    meter = Meter(0, on_progress)

    def generate(length: int, count: Count) -> Iterable[Item]:
        return hidden(length, count, text=text, facts=facts, seed=seed)

    def outlook(total: int) -> None:
        meter.total = max(total, meter.done)

    suite = Suite(Path(os.fspath(model)), generate, [length], methods, read_with=read_with,
                  raw=True, threads=threads, resume=resume)
    for result in suite.run(Observer(outlook=outlook, work=meter.advance)):
        on_result(result)
    return [_of(method, suite, length) for method in methods]


def _of(method: str, suite: Suite, length: int) -> Needles:
    mine = sorted((each for each in suite.results if each.method == method),
                  key=lambda each: each.depth or 0.0)
    found = [each.score == 1 for each in mine]
    low, high = wilson(sum(found), len(found))
    return Needles(
        method=method, parameters=suite.parameters[method][length], length=length,
        places=[each.depth or 0.0 for each in mine], found=found,
        answers=[each.answer for each in mine], low=low, high=high,
    )
