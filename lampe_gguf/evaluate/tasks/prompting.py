"""From an item to the tokens that a model reads, whole or cut to a window."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...conversation.prompt import chat_tokens, plain_text
from ...errors import LampeError
from .item import Item

Tokens = npt.NDArray[np.int32]


class Prompter:
    """Makes prompts with a model's vocabulary (`_model` of a Llama, or session.vocabulary()).

    raw  leave the chat template aside: every prompt is to be continued
    """

    def __init__(self, model: Any, raw: bool = False) -> None:
        self.model = model
        self.raw = raw

    def count(self, text: str) -> int:
        """Tokens of a prompt that says the text, the template's own included."""
        return len(self._encode(text, "", True))

    def tokens(self, item: Item) -> Tokens:
        """The whole prompt, the answer's beginning included: [n]."""
        return np.array(self._encode(item.text, item.prefix, item.chat), dtype=np.int32)

    def before_question(self, item: Item) -> int:
        """Tokens of the whole prompt, from its beginning on, that hold nothing of the question."""
        bare = dataclasses.replace(item, after="", prefix="")
        return common(self.tokens(item), self.tokens(bare))

    def cut(self, items: Sequence[Item], window: int) -> list[Tokens]:
        """The prompts, each with its answer in at most `window` tokens: fronts are left out.

        Of an item's context, that is; what stands before and after it is kept. Questions about
        one text are left the same part of it, so that it is read once. LampeError where a
        question alone is too long.
        """
        whole = [self.tokens(item) for item in items]
        over: dict[tuple[str, str], int] = {}  # tokens to leave out, by text
        for item, tokens in zip(items, whole, strict=True):
            text = item.before, item.context
            over[text] = max(over.get(text, 0), len(tokens) + item.max_tokens - window)
        return [self._without(item, tokens, over[item.before, item.context])
                for item, tokens in zip(items, whole, strict=True)]

    def _without(self, item: Item, whole: Tokens, count: int) -> Tokens:
        """The prompt without the first `count` tokens of its context."""
        if count <= 0:
            return whole
        empty = np.array(
            self._encode(item.before + item.after, item.prefix, item.chat), dtype=np.int32
        )
        if len(empty) >= len(whole) - count:
            raise LampeError(
                f"the question of item {item.id} of {item.task} has {len(empty):,} tokens and the "
                f"model's window leaves {max(0, len(whole) - count):,}; leave out --methods "
                "truncate"
            )
        start = common(whole, empty)
        return np.concatenate([whole[:start], whole[start + count :]])

    def _encode(self, text: str, prefix: str, chat: bool) -> list[int]:
        if chat and not self.raw:
            tokens = chat_tokens(self.model, [{"role": "user", "content": text}])
            if prefix:
                tokens += self.model.tokenize(prefix.lstrip().encode(), False, False)
            return tokens
        return list(self.model.tokenize(
            plain_text(self.model, text + prefix).encode(), self.model.add_bos_token(), False
        ))


def common(one: Tokens, other: Tokens) -> int:
    """Number of tokens that two prompts have in common from the beginning on."""
    n = min(len(one), len(other))
    differ = np.nonzero(one[:n] != other[:n])[0]
    return int(differ[0]) if len(differ) else n
