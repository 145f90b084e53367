"""Key-value retrieval as InfiniteBench defines it (arXiv 2402.13718): UUIDs in a JSON object."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ..errors import LampeError
from .haystack import SLACK, fill
from .item import Count, Item, draw, random_uuid

MAX_TOKENS = 50
SHARED = 10  # questions about one object: it is read once
BEFORE = "Below is a JSON object. Find the value that belongs to a key in it.\n\n"
AFTER = '\n\nThe key is "{key}". What is its value?'
PREFIX = ' The value of the key is "'


def kv(length: int, count: Count, *, limit: int, seed: int) -> Iterator[Item]:
    """`limit` items, ten to an object, their keys spread over it.

    LampeError where `length` has no room for one pair.
    """
    budget = length - MAX_TOKENS
    for first in range(0, limit, SHARED):
        rng = draw(seed, "kv", length, first)
        last = min(limit, first + SHARED)
        pairs: list[tuple[str, str]] = []

        def context(n: int, pairs: list[tuple[str, str]] = pairs) -> str:
            while len(pairs) < n:
                pairs.append((random_uuid(rng), random_uuid(rng)))  # noqa: B023
            return json.dumps(dict(pairs[:n]))

        def prompt(n: int, key: str) -> str:
            return BEFORE + context(n) + AFTER.format(key=key) + PREFIX  # noqa: B023

        some_key = random_uuid(rng)
        n = fill(lambda n: prompt(n, some_key), count, budget - SLACK,  # noqa: B023
                 "key-value retrieval")
        if n == 0:
            raise LampeError(f"{length:,} tokens hold no key and value; give a greater length")
        shares = [(i + rng.random()) / (last - first) for i in range(last - first)]
        # UUIDs differ in tokens
        while n > 1 and any(
            count(prompt(n, pairs[int(share * n)][0])) > budget for share in shares
        ):
            n -= 1
        for i, share in enumerate(shares, first):
            at = int(share * n)
            key, value = pairs[at]
            yield Item(
                task="kv", id=f"{i}", length=length, before=BEFORE, context=context(n),
                after=AFTER.format(key=key), prefix=PREFIX, expected=(value,), metric="contains",
                max_tokens=MAX_TOKENS, depth=round(at / n, 3),
            )
