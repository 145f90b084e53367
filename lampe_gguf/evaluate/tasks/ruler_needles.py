"""RULER's retrieval: numbers or UUIDs for names, hidden in noise, in prose or among their like."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from .haystack import Haystack, insert, noise
from .item import random_uuid
from .ruler_parts import Parts
from .words import key_word, key_words

NEEDLE = "One of the special magic {kind} for {key} is: {value}."


@dataclass(frozen=True)
class Kind:
    """A row of the paper's table.

    hay     what it is hidden in: "noise", "text", or "needles" of other keys
    keys    needles of different keys, of which `asked` are asked for, each with `values` values
    """

    hay: str
    key_is_uuid: bool = False
    value_is_uuid: bool = False
    keys: int = 1
    values: int = 1
    asked: int = 1


NEEDLE_TASKS = {
    "niah_single_1": Kind("noise"),
    "niah_single_2": Kind("text"),
    "niah_single_3": Kind("text", value_is_uuid=True),
    "niah_multikey_1": Kind("text", keys=4),
    "niah_multikey_2": Kind("needles"),
    "niah_multikey_3": Kind("needles", key_is_uuid=True, value_is_uuid=True),
    "niah_multivalue": Kind("text", values=4),
    "niah_multiquery": Kind("text", keys=4, asked=4),
}


def needles(task: str, hay: Haystack, rng: random.Random) -> Parts:
    """One of NEEDLE_TASKS; `hay` is the prose for those that are hidden in it."""
    kind = NEEDLE_TASKS[task]
    noun = "uuids" if kind.value_is_uuid else "numbers"

    def value() -> str:
        if kind.value_is_uuid:
            return random_uuid(rng)
        return str(rng.randrange(1_000_000, 10_000_000))

    if kind.key_is_uuid:
        keys = [random_uuid(rng) for _ in range(kind.keys)]
    else:
        keys = key_words(rng, kind.keys)
    hidden = [(rng.random(), key, value()) for key in keys for _ in range(kind.values)]
    asked = rng.sample(keys, kind.asked)
    said = [(depth, NEEDLE.format(kind=noun, key=key, value=number))
            for depth, key, number in hidden]
    filling = _filling(kind, noun, hay, set(keys), value, rng)
    names = asked[0] if len(asked) == 1 else ", ".join(asked[:-1]) + ", and " + asked[-1]
    wanted = [(depth, number) for depth, key, number in hidden if key in asked]
    single = len(wanted) == 1
    what = f"the special magic {noun[:-1]}" if single else f"all the special magic {noun}"
    return Parts(
        before=f"Some special magic {noun} are hidden in the text below. Memorise them: a question "
               "about them follows.\n\n",
        build=lambda n: insert(filling(n), said),
        after=f"\n\nWhat {'is' if single else 'are'} {what} for {names} that the text mentions?",
        prefix=f" {what.capitalize()} for {names} that the text mentions "
               f"{'is' if single else 'are'}",
        expected=tuple(number for _, number in wanted),
        depth=round(wanted[0][0], 3) if single else None,
    )


def _filling(
    kind: Kind, noun: str, hay: Haystack, keys: set[str], value: Callable[[], str],
    rng: random.Random,
) -> Callable[[int], list[str]]:
    if kind.hay == "noise":
        return noise().take
    if kind.hay == "text":
        start = rng.randrange(len(hay.sentences))
        return lambda n: hay.take(n, start)
    others: list[str] = []

    def distractors(n: int) -> list[str]:
        while len(others) < n:
            key = random_uuid(rng) if kind.key_is_uuid else key_word(rng)
            if not kind.key_is_uuid and len(others) > 1000:  # there are not names enough
                key = f"{key}-{len(others)}"
            if key not in keys:
                others.append(NEEDLE.format(kind=noun, key=key, value=value()))
        return others[:n]

    return distractors
