"""Needle in a haystack: a fact in a long real text, for each length and depth of a grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from .haystack import SLACK, Haystack, checked, fill, insert
from .item import Count, Item, draw
from .words import key_word

MAX_TOKENS = 24
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
BEFORE = "A special number is hidden in the text below. Remember it: a question follows.\n\n"
NEEDLE = "The special number for {key} is {value}."
AFTER = "\n\nWhat is the special number for {key} in the text above?"
PREFIX = " The special number for {key} is"


def niah(
    length: int,
    count: Count,
    *,
    hay: Haystack,
    depths: Sequence[float] = DEPTHS,
    limit: int,
    seed: int,
) -> Iterator[Item]:
    """`limit` items a depth, each round in another part of the haystack, deepest first.

    LampeError where `length` has no room.
    """
    budget = length - MAX_TOKENS
    for turn in range(limit):
        rng = draw(seed, "niah", length, turn)
        start = rng.randrange(len(hay.sentences))

        def context(n: int, depth: float, key: str, value: str, start: int = start) -> str:
            return insert(hay.take(n, start), [(depth, NEEDLE.format(key=key, value=value))])

        def prompt(n: int, depth: float = 0.5, key: str = "quiet-harbour",
                   value: str = "8888888") -> str:
            text = context(n, depth, key, value)  # noqa: B023  (used within this turn)
            return BEFORE + text + AFTER.format(key=key) + PREFIX.format(key=key)

        most = fill(prompt, count, budget - SLACK, "a needle in a haystack")
        for depth in sorted(depths, reverse=True):
            key, value = key_word(rng), str(rng.randrange(1_000_000, 10_000_000))
            n = checked(partial(prompt, depth=depth, key=key, value=value), count, budget, most)
            yield Item(
                task="niah", id=f"{turn}@{depth:g}", length=length, before=BEFORE,
                context=context(n, depth, key, value), after=AFTER.format(key=key),
                prefix=PREFIX.format(key=key), expected=(value,), metric="contains",
                max_tokens=MAX_TOKENS, depth=depth,
            )
