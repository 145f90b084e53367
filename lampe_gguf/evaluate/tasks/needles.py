"""Facts among facts of their kind, spread through a real text and asked for one by one."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence

from ...errors import LampeError
from .haystack import SLACK, fill
from .item import Count, Item, draw
from .words import key_words

FACTS = 20
DIGITS = 7  # RULER's; a model of 135M copies as many without a slip, and none is right by chance
MAX_TOKENS = DIGITS + 4  # a space, the digits, and what shows that there are no more of them
FACT = "The special magic number for {name} is {digits}."
AFTER = "\n\n\nThe special magic number for {name} is"  # to be continued: no template is needed
BREAK = re.compile(r"(?<=[.!?]) +|\n\s*\n\s*")  # between sentences, and between paragraphs


def needles(
    length: int, count: Count, *, text: str, facts: int = FACTS, seed: int = 0
) -> Iterator[Item]:
    """One item for each fact, all about the same text, from its beginning to its end.

    text   what they are hidden in: its first `length` tokens, as it stands
    facts  how many; each has a name and a number of its own, and all the others mislead
    seed   draws names and numbers anew, and leaves their places

    LampeError where `length` has no room for them, or the text is too short.
    """
    rng = draw(seed, "needles", length)
    names = key_words(rng, facts)
    numbers = [str(rng.randrange(10 ** (DIGITS - 1), 10**DIGITS)) for _ in names]
    said = [FACT.format(name=name, digits=digits)
            for name, digits in zip(names, numbers, strict=True)]
    breaks = [0, *(found.end() for found in BREAK.finditer(text))]
    longest = max(names, key=len)
    budget = length - MAX_TOKENS - SLACK

    def prompt(n: int) -> str:
        return hide(text[:n], said, breaks)[0] + AFTER.format(name=longest)

    n = fill(prompt, count, budget, f"a text with {facts} facts", len(text))
    if n >= len(text):
        raise LampeError(
            f"the text is too short for {length:,} tokens; give a longer one, or a smaller length"
        )
    context, places = hide(text[:n], said, breaks)
    for name, digits, place in zip(names, numbers, places, strict=True):
        yield Item(
            task="needles", id=name, length=length, before="", context=context,
            after=AFTER.format(name=name), expected=(digits,), metric="first_number",
            max_tokens=MAX_TOKENS, depth=round(place, 4), chat=False,
        )


def hide(
    text: str, said: Sequence[str], breaks: Sequence[int]
) -> tuple[str, list[float]]:
    """The text with sentences spread evenly through it, and where each begins, 0 ... 1.

    breaks  where a sentence may stand, as characters of the text, in order; what lies beyond its
            end does not count
    """
    parts: list[str] = []
    starts: list[int] = []
    done, size = 0, 0
    usable = breaks[: max(1, bisect.bisect_right(breaks, len(text)))]
    for i, sentence in enumerate(said):
        wanted = (i + 0.5) / len(said) * len(text)
        at = bisect.bisect_left(usable, wanted)
        near = min(usable[max(0, at - 1) : at + 1], key=lambda place: abs(place - wanted))
        near = max(near, done)
        parts += [text[done:near], sentence, " "]
        starts.append(size + near - done)
        size += near - done + len(sentence) + 1
        done = near
    parts.append(text[done:])
    whole = "".join(parts)
    return whole, [start / len(whole) for start in starts]
