"""RULER's tracing of variables, common words and frequent words."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence

from .haystack import Haystack, insert, noise
from .ruler_parts import Parts
from .words import ADJECTIVES, NOUNS

HOPS = 4
COMMON = 10  # words to find
SHORT = 4096  # tokens: the frequencies are smaller up to this length
ZETA_2 = 1.6449340668482264  # the sum of 1 / k^2
LEAST_CODED = 60  # words, so that the four most frequent differ in number


def variables(rng: random.Random) -> Parts:
    """A chain of five variables that get a value from one another; all of them are asked for."""
    example_names, example_value = _names(rng), str(rng.randrange(10000, 100000))
    names, value = _names(rng), str(rng.randrange(10000, 100000))
    depths = sorted(rng.random() for _ in names)
    said = list(zip(depths, _assignments(names, value), strict=True))
    example = (" ".join(_assignments(example_names, example_value))
               + _ask(example_value) + _answer(example_value) + " ".join(example_names))
    return Parts(
        before="Memorise the chain of variable assignments that is hidden in a text. An example:"
               f"\n\n{example}\n\nAnd now the text.\n\n",
        build=lambda n: insert(noise().take(n), said),
        after=_ask(value),
        prefix=_answer(value),
        expected=tuple(names),
    )


def _names(rng: random.Random) -> list[str]:
    names: list[str] = []
    while len(names) <= HOPS:
        name = "".join(rng.choices(string.ascii_uppercase, k=5))
        if name not in names:
            names.append(name)
    return names


def _assignments(names: Sequence[str], value: str) -> list[str]:
    return [f"VAR {names[0]} = {value}.",
            *(f"VAR {new} = VAR {old}." for old, new in zip(names, names[1:], strict=False))]


def _ask(value: str) -> str:
    return f"\n\nWhich variables have the value {value} in the text above? Name all of them."


def _answer(value: str) -> str:
    return (f" By the chain of assignments in the text, {HOPS + 1} variables have the value "
            f"{value}, namely:")


def common_words(length: int, hay: Haystack, rng: random.Random) -> Parts:
    """A numbered list of words, ten of them much more often than the rest."""
    often, seldom = (30, 3) if length > SHORT else (10, 1)
    supply = _supply(hay, rng)
    common = supply[:COMMON]
    order = rng.getrandbits(64)
    example_common, example_rest = supply[COMMON : 2 * COMMON], supply[2 * COMMON : 3 * COMMON]
    example = _numbered(example_common * 3 + example_rest, rng.getrandbits(64))

    def build(n: int) -> str:
        rest = supply[3 * COMMON : 3 * COMMON + n]
        return _numbered(common * often + rest * seldom, order)

    ask = f"\n\nWhich {COMMON} words are the most common in the list above?"
    prefix = f" The {COMMON} words that are most common in the list are:"
    return Parts(
        before="Below is a numbered list of words, some of which come more often than others. "
               f"Memorise those that come most often. An example:\n\n{example}{ask}{prefix} "
               f"{_listed(example_common)}\n\nAnd now the list.\n\n",
        build=build, after=ask, prefix=prefix, expected=tuple(common),
        most=len(supply) - 3 * COMMON,
    )


def _supply(hay: Haystack, rng: random.Random) -> list[str]:
    """Plain words in random order, then pairs of words, for lists that need more.

    None of the words to find is a part of another word: it would be found in that.
    """
    words = sorted({*hay.words, *ADJECTIVES, *NOUNS})
    rng.shuffle(words)
    common: list[str] = []
    for word in words:
        if len(common) == COMMON:
            break
        if len(word) > 4 and not any(word in each or each in word for each in common):
            common.append(word)
    taken = set(common)
    rest = [word for word in words
            if word not in taken and not any(each in word for each in common)]
    pairs = [f"{one}-{other}" for one in ADJECTIVES for other in NOUNS
             if one not in taken and other not in taken]
    rng.shuffle(pairs)
    return [*common, *rest, *pairs]


def _numbered(words: list[str], order: int) -> str:
    random.Random(order).shuffle(words)
    return " ".join(f"{i}. {word}" for i, word in enumerate(words, 1))


def _listed(words: Sequence[str]) -> str:
    return " ".join(f"{i}. {word}" for i, word in enumerate(words, 1))


def frequent_words(rng: random.Random) -> Parts:
    """A text of invented words whose numbers follow a zeta distribution (exponent 2).

    The most frequent of all is dots; the three after it are asked for.
    """
    words: list[str] = []
    while len(words) < 3000:
        word = "".join(rng.choices(string.ascii_lowercase, k=6))
        if word not in words[-100:]:
            words.append(word)
    order = rng.getrandbits(64)

    def build(n: int) -> str:
        total = n + LEAST_CODED
        text: list[str] = []
        for rank, word in enumerate(words, 2):
            number = round(total / (ZETA_2 * rank * rank))
            if number == 0:
                break
            text += [word] * number
        text += ["..."] * (total - len(text))
        random.Random(order).shuffle(text)
        return " ".join(text)

    return Parts(
        before="Below is a text of coded words. Keep track of how often each of them comes.\n\n",
        build=build,
        after="\n\nWhich three coded words come most often in the text above? Leave out the dots, "
              "and explain nothing.",
        prefix=" The three coded words that come most often are:",
        expected=tuple(words[:3]),
    )
