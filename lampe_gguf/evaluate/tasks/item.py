"""One question about one long text, and what its answer is scored with."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

Count = Callable[[str], int]  # tokens of a whole prompt that says this text, template included


@dataclass(frozen=True)
class Item:
    """A prompt in three parts, so that a text can be shared by questions, or shortened.

    id          unique among the items of its task and length
    length      tokens that the prompt and the answer have at most; of records from a file, the
                power of two that holds them
    before, context, after   the prompt is these three, end to end; the question stands last
    prefix      how the answer begins, given to the model after the prompt
    expected    the right answers, what `metric` wants of them
    metric      a name of scoring.METRICS
    max_tokens  longest answer
    depth       where the answer is in the text, 0 (its beginning) ... 1, where that is one place
    chat        False where the prompt is to be continued, whatever template the model has
    classes     names to choose between, where the metric has any
    """

    task: str
    id: str
    length: int
    before: str
    context: str
    after: str
    expected: tuple[str, ...]
    metric: str
    max_tokens: int
    prefix: str = ""
    depth: float | None = None
    chat: bool = True
    classes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The prompt without the answer's beginning."""
        return self.before + self.context + self.after


def draw(seed: int, *what: object) -> random.Random:
    """Random numbers that follow from the seed and from what they are for, and nothing else."""
    return random.Random(" ".join(map(str, (seed, *what))))


def random_uuid(rng: random.Random) -> str:
    """A version 4 UUID from the generator's own numbers."""
    digits = f"{rng.getrandbits(128):032x}"
    variant = "89ab"[int(digits[16], 16) % 4]
    return (f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-"
            f"{digits[20:]}")
