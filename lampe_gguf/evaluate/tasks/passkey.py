"""Passkey retrieval: a number in sentences that say nothing (arXiv 2305.16300, in own words)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from .haystack import SLACK, checked, fill, insert, noise
from .item import Count, Item, draw

MAX_TOKENS = 16
BEFORE = "There is a number hidden in the text below. Find it and remember it.\n\n"
NEEDLE = "The pass key is {key}. Remember it. {key} is the pass key."
AFTER = "\n\nWhat is the pass key?"
PREFIX = " The pass key is"


def passkey(length: int, count: Count, *, limit: int, seed: int) -> Iterator[Item]:
    """`limit` items whose keys stand at depths spread over the text, the deepest first.

    The one before has most of the text in common, and need not be read again.
    LampeError where `length` has no room.
    """
    rng = draw(seed, "passkey", length)
    budget = length - MAX_TOKENS
    found = [((i + rng.random()) / limit, str(rng.randrange(10000, 100000)))
             for i in range(limit)]
    hay = noise()

    def context(n: int, depth: float, key: str) -> str:
        return insert(hay.take(n), [(depth, NEEDLE.format(key=key))])

    def prompt(n: int, depth: float = 0.5, key: str = "88888") -> str:
        return BEFORE + context(n, depth, key) + AFTER + PREFIX

    most = fill(prompt, count, budget - SLACK, "a passkey item")
    for depth, key in sorted(found, reverse=True):
        n = checked(partial(prompt, depth=depth, key=key), count, budget, most)
        yield Item(
            task="passkey", id=f"{key}@{depth:.3f}", length=length, before=BEFORE,
            context=context(n, depth, key), after=AFTER, prefix=PREFIX, expected=(key,),
            metric="contains", max_tokens=MAX_TOKENS, depth=round(depth, 3),
        )
