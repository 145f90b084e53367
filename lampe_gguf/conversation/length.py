"""How many tokens texts have, said as soon as it is known that they are too many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..backend import api

OnProgress = Callable[[int, int], None]  # characters counted so far, characters in all

PIECE = 32_768  # characters: tokenised in some hundredths of a second, which Ctrl-C waits for
SLACK = 2  # tokens that a text may have fewer than its pieces, for each of them
USUAL_TOKEN = 16  # bytes; only texts that would need longer ones make the vocabulary worth a look


@dataclass(frozen=True)
class Count:
    """Tokens of texts; where there are more than was asked about, an estimate from their begin.

    characters  that a token stands for, on average
    """

    tokens: int
    is_too_long: bool
    characters: float


def count_up_to(
    model: Any, texts: Sequence[str], limit: int, on_progress: OnProgress | None = None
) -> Count:
    """Count the tokens of texts piece by piece, no further than `limit`.

    model  the internal LlamaModel of a Llama (`_model`), or one with the vocabulary alone
    The count of what fits is right to within two tokens for each piece. Takes the memory of a
    piece, and stops between two of them where `on_progress` raises, or Ctrl-C is pressed.
    """
    total = sum(map(len, texts))
    # no text has fewer tokens than of the vocabulary's longest alone: then its begin tells enough
    is_certain = total > limit * USUAL_TOKEN and total > limit * longest_token(model)
    tokens = done = n_pieces = 0
    for piece in pieces(texts):
        tokens += count_tokens(model, piece)
        done += len(piece)
        n_pieces += 1
        if on_progress is not None:
            on_progress(done, total)
        if is_certain or tokens - SLACK * n_pieces > limit:
            return Count(round(tokens / done * total), True, done / max(1, tokens))
    return Count(tokens, False, done / max(1, tokens))


def pieces(texts: Iterable[str]) -> Iterator[str]:
    """The texts in pieces of at most PIECE characters, divided before a line or a word."""
    for text in texts:
        start = 0
        while start < len(text):
            end = start + PIECE
            if end < len(text):
                half = start + PIECE // 2
                at = max(text.rfind("\n", half, end), text.rfind(" ", half, end))
                end = at if at > start else end
            yield text[start:end]
            start = end


def longest_token(model: Any) -> int:
    """Bytes of the longest token of a vocabulary, at least; nothing stands for more text."""
    module = api.llama_cpp()
    texts = (module.llama_vocab_get_text(model.vocab, i) for i in range(model.n_vocab()))
    return max(map(len, texts), default=1)


def count_tokens(model: Any, text: str) -> int:
    """Tokens of one text, all at once."""
    data = text.encode(errors="replace")
    # without room for them it says how many there are
    count = api.llama_cpp().llama_tokenize(model.vocab, data, len(data), None, 0, False, False)
    return abs(int(count))
