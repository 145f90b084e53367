"""The text that answers are hidden in, cut to a budget of tokens."""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ...errors import LampeError, UsageError
from .item import Count

# of Mohtashami and Jaggi's passkey task (arXiv 2305.16300), which RULER uses as well
NOISE = ("The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.",
         "There and back again.")
LONGEST_SENTENCE = 300  # characters; longer ones (code, tables) are cut between words
SLACK = 8  # tokens that another answer, or another place for it, may add to a prompt


@dataclass(frozen=True)
class Haystack:
    """Sentences in order, begun anew where they are not enough."""

    sentences: tuple[str, ...]

    def take(self, n: int, start: int = 0) -> list[str]:
        """`n` sentences from sentence `start` on."""
        total = len(self.sentences)
        return [self.sentences[(start + i) % total] for i in range(n)]

    @cached_property
    def words(self) -> list[str]:
        """Its plain words of four letters or more, each once, in alphabetical order."""
        return sorted(set(re.findall(r"\b[a-z]{4,12}\b", " ".join(self.sentences))))


def noise() -> Haystack:
    """The five sentences that say nothing."""
    return Haystack(NOISE)


def haystack(text: str | None = None) -> Haystack:
    """The sentences of a text; by default of Python's own reference manual, always at hand.

    UsageError for a text without any.
    """
    if text is None:
        from pydoc_data.topics import topics

        text = "\n\n".join(topics[name] for name in sorted(topics))
    sentences: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        flat = re.sub(r"[^\S\n]+|\n", " ", paragraph).strip()
        for sentence in re.split(r"(?<=[.!?]) +", flat):
            sentences += _pieces(sentence)
    if not sentences:
        raise UsageError("the haystack has no sentences; give a text file with prose in it")
    return Haystack(tuple(sentences))


def _pieces(sentence: str) -> list[str]:
    pieces = []
    while len(sentence) > LONGEST_SENTENCE:
        at = sentence.rfind(" ", 1, LONGEST_SENTENCE)
        at = at if at > 0 else LONGEST_SENTENCE
        pieces.append(sentence[:at])
        sentence = sentence[at:].strip()
    return [*pieces, sentence] if sentence else pieces


def insert(sentences: Sequence[str], needles: Sequence[tuple[float, str]]) -> str:
    """A text of the sentences with each needle at its depth (0 ... 1, by characters)."""
    ends = [0]
    for sentence in sentences:
        ends.append(ends[-1] + len(sentence) + 1)
    places: dict[int, list[str]] = {}
    for depth, needle in needles:
        wanted = depth * ends[-1]
        at = min(bisect.bisect_left(ends, wanted), len(ends) - 1)
        if at and wanted - ends[at - 1] < ends[at] - wanted:
            at -= 1
        places.setdefault(at, []).append(needle)
    parts: list[str] = []
    for i in range(len(ends)):
        parts += places.get(i, [])
        parts += sentences[i : i + 1]
    return " ".join(parts)


def fill(
    build: Callable[[int], str], count: Count, budget: int, what: str, most: int = 2**22
) -> int:
    """The largest n up to `most`, or nearly, whose build(n) has at most `budget` tokens.

    Longer for a larger n, build is called a handful of times: a text of a million tokens takes
    long to count. LampeError where build(0) has too many, naming `what`.
    """
    low, n_low = 0, count(build(0))
    if n_low > budget:
        raise LampeError(
            f"{what} needs {n_low:,} tokens without its text and {budget:,} are left for it; "
            "give a greater length"
        )
    high, n_high = most + 1, 0  # tokens at high: 0 while they are not known
    tolerance = max(4, budget // 200)
    guess = min(most, max(1, budget // 32))
    while high - low > 1 and budget - n_low > tolerance:
        tokens = count(build(guess))
        if tokens <= budget:
            low, n_low = guess, tokens
        else:
            high, n_high = guess, tokens
        if n_high:
            rate = (n_high - n_low) / (high - low)
        else:
            rate = max(n_low / max(1, low), 1e-3)
        step = (budget - tolerance / 2 - n_low) / rate
        guess = max(low + 1, min(high - 1, low + round(step)))
    return low


def checked(build: Callable[[int], str], count: Count, budget: int, n: int) -> int:
    """The largest n from this one down whose build(n) has at most `budget` tokens."""
    while n > 0 and (over := count(build(n)) - budget) > 0:
        n = max(0, n - max(1, over // 64))
    return n
