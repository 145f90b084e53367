"""Questions about many documents, each answered by one of them, by where that one stands.

The setting is that of "Lost in the Middle" (arXiv 2307.03172): passages, numbered, one of which
answers. Here all questions are about one text, so that it is read once, and what answers one
misleads the others. Own words.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from ...errors import LampeError, UsageError
from .haystack import SLACK, fill
from .item import Count, Item, draw
from .passages import Passages, Question

MAX_TOKENS = 24
BEFORE = ("Below are documents. A question follows that one of them answers. Give only the answer, "
          "in a few words.\n\n")
AFTER = "\n\nQuestion: {question}"
PREFIX = "\nAnswer:"
LIMIT = 40


def documents(
    length: int, count: Count, *, passages: Passages, limit: int = LIMIT, seed: int = 0
) -> Iterator[Item]:
    """Up to `limit` questions of one passage each, about one text of them, spread over it.

    passages  questions with what answers them; those of several passages are not asked
    seed      draws which passages, in which order

    UsageError for passages without such questions, LampeError where `length` has no room for one
    document, or there are too few to fill it.
    """
    asked = _drawn(passages, draw(seed, "documents", length))
    longest = max((each.text for each in asked), key=len)
    budget = length - MAX_TOKENS - SLACK

    def context(n: int) -> str:
        return "\n\n".join(f"Document {k}: {each.passages[0]}"
                           for k, each in enumerate(asked[:n], 1))

    def prompt(n: int) -> str:
        return BEFORE + context(n) + AFTER.format(question=longest) + PREFIX

    n = fill(prompt, count, budget, "questions about documents", len(asked))
    if n == 0:
        raise LampeError(f"{length:,} tokens hold no document; give a greater length")
    if n == len(asked):
        raise LampeError(f"{n:,} passages do not fill {length:,} tokens; give more of them, or a "
                         "smaller length")
    whole = context(n)
    questions = min(limit, n)
    for i in range(questions):
        at = int((i + 0.5) * n / questions)
        each = asked[at]
        yield Item(
            task="documents", id=str(i), length=length, before=BEFORE, context=whole,
            after=AFTER.format(question=each.text), prefix=PREFIX, expected=each.answers,
            metric="contains", max_tokens=MAX_TOKENS, depth=round(at / n, 3),
        )


def _drawn(passages: Passages, rng: random.Random) -> Sequence[Question]:
    """The questions in the order of their documents, none of which stands there twice."""
    of_each = {each.passages[0]: each for each in passages.single}
    if not of_each:
        raise UsageError("the passages have no question that one of them answers; give others")
    asked = list(of_each.values())
    rng.shuffle(asked)
    return asked
