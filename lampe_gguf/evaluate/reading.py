"""A text read once, and asked about under any map (method: section 7).

Excerpts of what was read are fed again behind a separator, and so are fresh ones. Cached keys
carry no positions, so one reading serves every map: the map is the question's choice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..method.config import LampeConfig
from .perplexity import negative_log_likelihood

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

FloatArray = npt.NDArray[np.float64]

CUE = 16  # tokens of an excerpt that are given
SCORED = 48  # tokens after them that are predicted
SIZE = CUE + SCORED
SEPARATOR = "\n\n\n"
ROOM = 128  # tokens behind a text that a question takes at most: separator and excerpt

OnTokens = Callable[[int], None]  # called with the number of tokens just read


def starts_of(length: int, count: int, size: int = SIZE) -> list[int]:
    """Where `count` excerpts of `size` tokens begin, spread evenly through `length` tokens."""
    return [int((length - size) * (i + 0.5) / count) for i in range(count)]


def excerpts_of(tokens: Sequence[int], length: int, count: int) -> list[list[int]]:
    """`count` excerpts of the first `length` of `tokens`, far to near."""
    return [list(tokens[start : start + SIZE]) for start in starts_of(length, count)]


def fresh_ones(tokens: Sequence[int], start: int, count: int) -> list[list[int]]:
    """`count` excerpts of `tokens`, one after the other from `start` on: what was not read."""
    return [list(tokens[start + i * SIZE : start + (i + 1) * SIZE]) for i in range(count)]


def shared_prefix(a: LampeConfig, b: LampeConfig, length: int) -> int:
    """How many of the first `length` tokens have the same keys and values under both.

    Under the policy `causal` a token depends on the plans of what is before it alone, so that a
    text need not be read again up to where two schedules part. Under `prompt`, nothing is shared.
    """
    same = ("length_step", "length_policy", "attention_factor")
    if a.length_policy != "causal" or any(getattr(a, x) != getattr(b, x) for x in same):
        return 0
    step = a.length_step
    for at in range(step, length + step, step):
        if a.plan(at) != b.plan(at):
            return at - step
    return length


class Reading:
    """An open model with a text read, which questions leave as it is.

    llm        its context holds the longest text and ROOM more; nobody else may use it meanwhile
    on_tokens  called with the number of tokens just read, those of questions included

    >>> from lampe_gguf import LampeLlama
    >>> from lampe_gguf.evaluate.reading import Reading, excerpts_of, fresh_ones
    >>> with LampeLlama("model.gguf", lampe="auto", n_ctx=512) as llm:
    ...     tokens = llm.tokenize(open("book.txt", "rb").read())
    ...     reading = Reading(llm)
    ...     _ = reading.read(tokens[:256], llm.lampe_config)
    ...     old, fresh = reading.losses(
    ...         llm.lampe_config, excerpts_of(tokens, 256, 2), fresh_ones(tokens, 256, 2))
    >>> old.shape, fresh.shape
    ((2,), (2,))
    """

    def __init__(self, llm: LampeLlama, on_tokens: OnTokens = lambda count: None) -> None:
        self.llm = llm
        self.on_tokens = on_tokens
        self.between: list[int] = llm.tokenize(SEPARATOR.encode(), False, False)
        self._tokens: list[int] = []  # what the context holds
        self._config: LampeConfig | None = None  # what it was read under

    @property
    def question(self) -> int:
        """Tokens that are read to ask about one excerpt."""
        return len(self.between) + SIZE

    def missing(self, tokens: Sequence[int], config: LampeConfig) -> int:
        """How many of `tokens` are still to be read to have them as read under `config`."""
        return len(tokens) - self._shared(tokens, config)

    def read(self, tokens: Sequence[int], config: LampeConfig) -> float:
        """Have `tokens`, and nothing else, in the context, read under `config`.

        What the context holds of them by now, and would hold under `config` too, is not read again.
        The seconds that it took; 0 where nothing was to be read.
        """
        start = time.monotonic()
        tokens = list(tokens)
        shared = self._shared(tokens, config)
        self._tokens = []  # what an interruption leaves behind is of no use
        if shared < len(tokens):
            self.llm.set_config(config)
            if shared == 0:
                self.llm.reset()
            self.llm.n_tokens = shared  # what is behind that is dropped with the next batch
            self.on_tokens(shared)
            before = 0

            def tell(done: int, total: int) -> None:
                nonlocal before
                self.on_tokens(done - before)
                before = done

            self.llm.progress = tell
            try:
                self.llm.eval(tokens[shared:])
            finally:
                self.llm.progress = None
        self._tokens, self._config = tokens, config
        return time.monotonic() - start if shared < len(tokens) else 0.0

    def losses(
        self, config: LampeConfig, old: Sequence[list[int]], fresh: Sequence[list[int]]
    ) -> tuple[FloatArray, FloatArray]:
        """Mean nats a token of each excerpt's scored tokens, asked under `config` behind the text.

        Recall loss of the old, [len(old)], and unseen loss of the fresh ones, [len(fresh)].
        """
        self.llm.set_config(config)
        found = np.array([self._ask(each) for each in (*old, *fresh)])
        return found[: len(old)], found[len(old) :]

    def _shared(self, tokens: Sequence[int], config: LampeConfig) -> int:
        if self._config is None:
            return 0
        tokens = list(tokens)
        most = min(len(tokens), len(self._tokens))
        differ = np.flatnonzero(np.array(tokens[:most]) != np.array(self._tokens[:most]))
        same = int(differ[0]) if len(differ) else most
        # under `prompt` a text's length is part of how it was read
        if tokens == self._tokens and config.effective() == self._config.effective():
            return same
        return min(same, shared_prefix(self._config, config, most))

    def _ask(self, tokens: list[int]) -> float:
        fed = [*self.between, *tokens]
        first = len(self.between) + CUE - 1  # whose logits predict the first scored token
        values = np.empty(SCORED)
        self.llm.n_tokens = len(self._tokens)  # what was asked before goes
        for start, logits in self.llm.read_logits(fed):
            lower, upper = max(start, first), min(start + len(logits), first + SCORED)
            if lower < upper:
                targets = np.array(fed[lower + 1 : upper + 1], dtype=np.int64)
                values[lower - first : upper - first] = negative_log_likelihood(
                    logits[lower - start : upper - start], targets)
        self.on_tokens(len(fed))
        return float(values.mean())
