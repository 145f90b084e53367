"""Numbers that are no token: llama.cpp ends the process for some, or takes them for others."""

from __future__ import annotations

from collections.abc import Iterable

from llama_cpp._internals import LlamaModel

from ..errors import LampeError


def require_tokens(tokens: Iterable[int], n_vocab: int) -> None:
    """LampeError, which names it, for one that is none of the vocabulary's `n_vocab`."""
    for token in tokens:
        if not 0 <= token < n_vocab:
            raise LampeError(f"there is no token {token}: the vocabulary has {n_vocab:,} tokens, "
                             f"0 to {n_vocab - 1}; give tokens of this model")


class Model(LlamaModel):  # type: ignore[misc]
    """A LlamaModel that looks at tokens before it hands them on: vector::at() ends the process."""

    def token_get_text(self, token: int) -> str:
        require_tokens([token], self.n_vocab())
        text: str = super().token_get_text(token)
        return text

    def token_get_score(self, token: int) -> float:
        require_tokens([token], self.n_vocab())
        return float(super().token_get_score(token))

    def token_get_attr(self, token: int) -> int:
        require_tokens([token], self.n_vocab())
        return int(super().token_get_attr(token))

    def token_to_piece(self, token: int, special: bool = False) -> bytes:
        require_tokens([token], self.n_vocab())
        return bytes(super().token_to_piece(token, special))

    def detokenize(self, tokens: list[int], special: bool = False) -> bytes:
        require_tokens(tokens, self.n_vocab())
        return bytes(super().detokenize(tokens, special))
