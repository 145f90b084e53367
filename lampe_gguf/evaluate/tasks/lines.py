"""LongEval's lines: a register of numbered lines, one of which is asked for.

The form of a line is the published one (LMSYS, "How Long Can Open-Source LLMs Truly Promise on
Context Length?", 2023); the words around it are not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from ...errors import LampeError
from .haystack import SLACK, fill
from .item import Count, Item, draw
from .words import all_key_words

MAX_TOKENS = 12
BEFORE = ("Below is a register. Each line has a name and ends with its REGISTER_CONTENT, a number. "
          "Remember them: a question follows.\n\n")
LINE = "line {name}: REGISTER_CONTENT is <{number}>"
AFTER = "\n\nWhat is the REGISTER_CONTENT in line {name}?"
PREFIX = " The REGISTER_CONTENT in line {name} is <"
MOST = 50000  # numbers are 1 ... 50,000, as published
SHARED = 20  # questions about one register: it is read once


def lines(length: int, count: Count, *, limit: int, seed: int) -> Iterator[Item]:
    """`limit` items, twenty to a register (where it has twenty lines), spread over it.

    LampeError where `length` has no room for one line.
    """
    first = 0
    while first < limit:
        asked = _register(length, count, draw(seed, "lines", length, first),
                          first, min(SHARED, limit - first))
        yield from asked
        first += len(asked)


def _register(
    length: int, count: Count, rng: random.Random, first: int, most: int
) -> list[Item]:
    """Up to `most` items about one register, each about another line; named from `first` on."""
    names = all_key_words()
    rng.shuffle(names)
    longest = max(names, key=len)
    said: list[tuple[str, int]] = []

    def context(n: int) -> str:
        while len(said) < n:
            said.append((names[len(said)], rng.randint(1, MOST)))
        return "\n".join(LINE.format(name=name, number=number) for name, number in said[:n])

    def prompt(n: int) -> str:
        return BEFORE + context(n) + AFTER.format(name=longest) + PREFIX.format(name=longest)

    n = fill(prompt, count, length - MAX_TOKENS - SLACK, "a register of lines", len(names))
    if n == 0:
        raise LampeError(f"{length:,} tokens hold no line; give a greater length")
    questions = min(most, n)
    places = [int((i + 0.5) * n / questions) for i in range(questions)]
    return [
        Item(
            task="lines", id=str(first + i), length=length, before=BEFORE, context=context(n),
            after=AFTER.format(name=said[at][0]), prefix=PREFIX.format(name=said[at][0]),
            expected=(str(said[at][1]),), metric="first_number", max_tokens=MAX_TOKENS,
            depth=round(at / n, 3),
        )
        for i, at in enumerate(places)
    ]
