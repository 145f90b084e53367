"""Retrieval against attention uncertainty: a key planted in a long text, asked for at its end."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ..backend.llama import LampeLlama
from ..conversation.prompt import chat_tokens
from ..conversation.reply import token_bytes
from ..errors import LampeError
from .reader import Reader

MAX_ANSWER = 12  # tokens: more than a key of five digits needs
SLACK = 16  # tokens: what a cut elsewhere, or another key, may add to a prompt
BEFORE = "There is a number hidden in this text. Remember it.\n\n"
KEY = "\n\nThe pass key is number {key}. Remember it. {key} is the pass key.\n\n"
AFTER = "\n\nWhat is the pass key?"
# begun for the model, so that the next token has to find the key; and without the space before it,
# which some tokenizers put into the token of a number
ANSWER = "The pass key is number"


@dataclass(frozen=True)
class Trial:
    """One key, hidden and asked for.

    depth    where it was planted, 0 (the text's beginning) ... 1 (its end)
    tokens   of the whole prompt, at most `length`
    hit      whether the answer, the likeliest tokens, begins with the key
    entropy  attention uncertainty of the query that has to find the key (the prompt's last
             token), nats, mean over layers and heads
    entropy_by_layer   mean over the heads: [n_layer]
    """

    method: str
    length: int
    depth: float
    tokens: int
    key: str
    answer: str
    hit: bool
    entropy: float
    entropy_by_layer: list[float]


def expected_tokens(lengths: Sequence[int], depths: Sequence[float]) -> int:
    """Tokens that the trials of one method read, nearly: what comes before a key is shared."""
    shared = sum(sorted(depths)[:-1])
    return round(sum(lengths) * (len(depths) - shared))


def run_trials(
    reader: Reader,
    method: str,
    text: str,
    lengths: Sequence[int],
    depths: Sequence[float],
    seed: int,
) -> list[Trial]:
    """A trial for each length and depth; keys follow from the seed, the same for every method.

    LampeError where a length has no room for the question.
    """
    trials = []
    for length in lengths:
        draw = random.Random(f"{seed} {length}")
        keys = {depth: str(draw.randrange(10000, 100000)) for depth in sorted(depths)}
        filler = fit(reader.llm, text, length)
        # the deepest first: the next has most of the text before it in common
        for depth in sorted(depths, reverse=True):
            tokens = prompt(reader.llm, filler, depth, keys[depth])
            trials.append(_trial(reader, method, length, depth, keys[depth], tokens))
    return trials


def _trial(
    reader: Reader, method: str, length: int, depth: float, key: str, tokens: list[int]
) -> Trial:
    llm, probe = reader.llm, reader.probe
    reader.read(tokens, [len(tokens) - 1])
    entropy = reader.rows.mean_entropy()
    answer = b""
    for _ in range(MAX_ANSWER):
        token = int(probe.logits().argmax())
        piece = token_bytes(llm._model, token)
        answer += piece
        if not piece or len(answer.strip()) >= len(key):
            break
        probe.read([token])
    shown = answer.decode("utf-8", "replace").strip()
    return Trial(
        method=method,
        length=length,
        depth=depth,
        tokens=len(tokens),
        key=key,
        answer=shown,
        hit=shown.startswith(key),
        entropy=float(entropy.mean()),
        entropy_by_layer=entropy.mean(axis=1).tolist(),
    )


def prompt(llm: LampeLlama, filler: str, depth: float, key: str) -> list[int]:
    """The tokens of a prompt with the key at `depth` of a text."""
    at = filler.rfind(" ", 0, round(depth * len(filler))) + 1  # between words
    content = BEFORE + filler[:at] + KEY.format(key=key) + filler[at:] + AFTER
    return [
        *chat_tokens(llm._model, [{"role": "user", "content": content}]),
        *llm.tokenize(ANSWER.encode(), add_bos=False),
    ]


def fit(llm: LampeLlama, text: str, length: int) -> str:
    """The beginning of a text that makes prompts of `length` tokens, or a few less.

    LampeError where the length is too small for the question alone.
    """

    def n_tokens(n_chars: int) -> int:
        return len(prompt(llm, text[:n_chars], 0.5, "88888")) + SLACK

    if n_tokens(0) > length:
        raise LampeError(
            f"a passkey trial needs {n_tokens(0)} tokens and --lengths asks for {length}; "
            f"give at least {n_tokens(0)}"
        )
    low, high = 0, min(len(text), 16 * length)
    while high - low > 8:
        middle = (low + high) // 2
        low, high = (middle, high) if n_tokens(middle) <= length else (low, middle)
    return text[:low]
