"""How fast a model reads here, from what was seen of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

FEW, MORE = 16, 128  # tokens that are read to see how fast it goes
SOON = 0.15  # seconds within which the few must be read for more to be worth it
ENOUGH = 256  # tokens of a reading that tell more than these


@dataclass
class Pace:
    """Seconds for each token: `first` at the beginning of a context, `more` for each one before it.

    Attention looks at all tokens before, so that the time of n tokens is first n + more n^2 / 2.
    """

    first: float | None = None
    more: float = 0.0

    @classmethod
    def measured(cls, llm: LampeLlama) -> Pace:
        """Have a model read a few tokens, and forget them; raises as LampeLlama.eval does."""
        progress, llm.progress = llm.progress, None
        try:
            token = max(0, int(llm.token_bos()))
            seconds = 0.0
            for n_tokens in (FEW, MORE):
                n_tokens = min(n_tokens, llm.n_ctx() // 2)
                llm.reset()
                start = time.monotonic()
                llm.eval([token] * n_tokens)
                seconds = (time.monotonic() - start) / max(1, n_tokens)
                if seconds * FEW > SOON:
                    break
            return cls(seconds)
        finally:
            llm.progress = progress
            llm.reset()

    def learn(self, start: int, end: int, seconds: float) -> None:
        """Tokens start to end of a context were read in that time."""
        n_tokens = end - start
        if n_tokens < ENOUGH or seconds <= 0:
            return
        mean = seconds / n_tokens
        if self.first is None or self.first > mean:
            self.first, self.more = mean, 0.0
        else:
            self.more = (mean - self.first) / ((start + end) / 2)

    def seconds(self, n_tokens: int, start: int = 0) -> float | None:
        """About how long so many tokens take behind `start` others; None: nothing is known."""
        if self.first is None:
            return None
        return n_tokens * (self.first + self.more * (start + n_tokens / 2))
