"""Key-value retrieval as InfiniteBench defines it (arXiv 2402.13718): UUIDs in a JSON object."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterator

from ...errors import LampeError
from .haystack import SLACK, fill
from .item import Count, Item, draw, random_uuid

MAX_TOKENS = 50
SHARED = 10  # questions about one object: it is read once
BEFORE = "Below is a JSON object. Find the value that belongs to a key in it.\n\n"
AFTER = '\n\nThe key is "{key}". What is its value?'
PREFIX = ' The value of the key is "'


def kv(length: int, count: Count, *, limit: int, seed: int) -> Iterator[Item]:
    """`limit` items, ten to an object (where it has ten pairs), their keys spread over it.

    LampeError where `length` has no room for one pair.
    """
    first = 0
    while first < limit:
        asked = _object(length, count, draw(seed, "kv", length, first), limit - first)
        for i, item in enumerate(asked, first):
            yield dataclasses.replace(item, id=str(i))
        first += len(asked)


def _object(length: int, count: Count, rng: random.Random, most: int) -> list[Item]:
    """Up to `most` items about one object, each about another key."""
    budget = length - MAX_TOKENS
    shares = [rng.random() for _ in range(SHARED)]
    some_key = random_uuid(rng)
    pairs: list[tuple[str, str]] = []

    def context(n: int) -> str:
        while len(pairs) < n:
            pairs.append((random_uuid(rng), random_uuid(rng)))
        return json.dumps(dict(pairs[:n]))

    def prompt(n: int, key: str = some_key) -> str:
        return BEFORE + context(n) + AFTER.format(key=key) + PREFIX

    def places(n: int) -> list[int]:
        questions = min(SHARED, most, n)
        ends = [i * n // questions for i in range(questions + 1)]
        return [low + int(share * (high - low))
                for low, high, share in zip(ends, ends[1:], shares, strict=False)]

    n = fill(prompt, count, budget - SLACK, "key-value retrieval")
    if n == 0:
        raise LampeError(f"{length:,} tokens hold no key and value; give a greater length")
    # UUIDs differ in tokens
    while n > 1 and any(count(prompt(n, pairs[at][0])) > budget for at in places(n)):
        n -= 1
    return [
        Item(
            task="kv", id="", length=length, before=BEFORE, context=context(n),
            after=AFTER.format(key=pairs[at][0]), prefix=PREFIX, expected=(pairs[at][1],),
            metric="contains", max_tokens=MAX_TOKENS, depth=round(at / n, 3),
        )
        for at in places(n)
    ]
