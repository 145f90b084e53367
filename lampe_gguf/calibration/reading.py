"""Losses of one text under changing configurations, at every length of a ladder in one reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..evaluate.perplexity import negative_log_likelihood
from ..method.config import LampeConfig
from .search import FloatArray

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

PIECES = 16  # of a tail window: how far they differ says how sure a mean is

OnTokens = Callable[[int], None]  # called with the number of tokens just read


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


class Reader:
    """Reads one text again and again; the context keeps what two readings share.

    tokens   what is read
    lengths  the ladder, ascending; the loss at a length is that of the `tail` tokens before it
    """

    def __init__(
        self, llm: LampeLlama, tokens: Sequence[int], lengths: Sequence[int], tail: int
    ) -> None:
        self.llm = llm
        self.tokens = list(tokens)
        self.windows = [(length - tail, length) for length in lengths]
        self.last: LampeConfig | None = None
        self.losses = np.full((len(lengths), PIECES), np.nan)

    def losses_of(self, config: LampeConfig, on_tokens: OnTokens) -> FloatArray:
        """Negative log-likelihood per token, [n_lengths, PIECES], each a mean over its tokens.

        Under `prompt` every query is planned with the whole text's length, so that only the last
        row is what a text of that length gives; the others are NaN.
        """
        length = self.windows[-1][1]
        shared = 0 if self.last is None else shared_prefix(self.last, config, length)
        shared = min(shared, self._tokens_kept())
        self.last = None  # what an interruption leaves behind is of no use
        self.llm.set_config(config)
        # what is behind that is dropped with the next batch
        self.llm.n_tokens = shared
        on_tokens(shared)
        if config.length_policy == "prompt":
            found = self._read_prompt(on_tokens)
        else:
            found = self.losses.copy()
            for row, (start, stop) in enumerate(self.windows):
                if stop > shared:
                    found[row] = self._read_window(start, stop, on_tokens)
            self.losses = found.copy()
            self.last = config
        return found

    def _tokens_kept(self) -> int:
        """How many of this text's tokens the context holds: another text may have been read."""
        n = min(self.llm.n_tokens, len(self.tokens))
        same = np.array_equal(self.llm.input_ids[:n], self.tokens[:n])
        return n if same else 0

    def _read_window(self, start: int, stop: int, on_tokens: OnTokens) -> FloatArray:
        # the token before the window predicts its first
        begin = min(self.llm.n_tokens, start - 1)
        self.llm.n_tokens = begin
        for at in range(begin, start - 1, self.llm.n_batch):
            batch = self.tokens[at : min(at + self.llm.n_batch, start - 1)]
            self.llm.eval(batch)
            on_tokens(len(batch))
        losses = self._losses(start, self.tokens[start - 1 : stop - 1], on_tokens)
        return _pieces(losses)

    def _losses(self, start: int, tokens: list[int], on_tokens: OnTokens) -> FloatArray:
        found = []
        for at, logits in self.llm.read_logits(tokens):
            targets = self.tokens[start + at : start + at + len(logits)]
            found.append(negative_log_likelihood(logits[: len(targets)], np.array(targets)))
            on_tokens(len(logits))
        return np.concatenate(found)

    def _read_prompt(self, on_tokens: OnTokens) -> FloatArray:
        start, stop = self.windows[-1]
        # in one call: that is what announces the length
        losses = self._losses(1, self.tokens[: stop - 1], on_tokens)[start - 1 :]
        found = np.full_like(self.losses, np.nan)
        found[-1] = _pieces(losses)
        return found


def _pieces(losses: FloatArray) -> FloatArray:
    """Means of PIECES equal parts, as far as they can be equal."""
    return np.array([part.mean() for part in np.array_split(losses, PIECES)])
