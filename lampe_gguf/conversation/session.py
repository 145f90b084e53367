"""Open a model to ask or to chat: how long a context it needs, and what fits into none."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..backend.vocabulary import vocabulary
from ..container.format import padded
from ..errors import LampeError, UsageError
from ..method.fields import MAX_LENGTH
from ..model.again import longer
from ..model.cache import cache_bytes
from ..model.choose import read_file
from ..shown import shown, size
from .documents import Document, as_message
from .length import OnProgress, count_up_to
from .prompt import chat_tokens

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

PAD = 256  # llama.cpp rounds a context up to a multiple of this
SENSIBLE_WINDOWS = 8  # further, answers are guesses: what is longer is better asked about in parts
CUT = "cut what does not fit with --fit newest or --fit spread"
GENERAL = "lampe-gguf convert MODEL --force --context-length {}"
PLAIN_WINDOWS = 16  # of plain RoPE, to see the difference; it reads nothing beyond one


def longest_input(path: str | os.PathLike[str], use_lampe: bool) -> tuple[int | None, int]:
    """The LaMPE context length (None for plain RoPE, which has none), and the window (0: unknown).

    Raises LampeError where LaMPE cannot extend the model.
    """
    file = read_file(path)
    if use_lampe:
        return file.config.context_length, file.config.window
    return None, file.info.window or 0


def tokens_to_ask(
    path: str | os.PathLike[str], documents: Sequence[Document], question: str, *,
    use_lampe: bool = True, n_answer: int = 0, n_ctx: int | None = None,
    on_progress: OnProgress | None = None, can_cut: bool = True,
) -> int:
    """Tokens that documents, question and an answer of `n_answer` need in the chat template.

    can_cut  whether who asks can have the documents cut, for the advice
    Loads the vocabulary alone: the model is opened with a context that fits. Raises UsageError
    where `n_ctx` does not, LampeError where none that the model supports does; that is seen
    before all of a long text is tokenised; `on_progress` is called with (characters counted, all).
    """
    path = read_file(path)
    limit, window = longest_input(path, use_lampe)
    most = limit or max(n_ctx or 0, PLAIN_WINDOWS * window) or MAX_LENGTH
    texts = [*(document.text for document in documents), question]
    with vocabulary(path) as vocab:
        count = count_up_to(vocab, texts, most, on_progress)
        refused = functools.partial(
            too_long, limit=limit, window=window, characters=count.characters,
            documents=documents, cache=functools.partial(cache_bytes, path.info), can_cut=can_cut,
            convert=functools.partial(longer, path))
        if count.is_too_long:
            raise refused(count.tokens + n_answer, about="about ")
        message = {"role": "user", "content": as_message(list(documents), question)}
        n_needed = len(chat_tokens(vocab, [message])) + n_answer
    if limit is not None and n_needed > limit:
        raise refused(n_needed)
    if limit is not None and n_ctx is not None and n_ctx > limit:
        raise UsageError(f"--n-ctx is {n_ctx:,} and this model supports {limit:,}; give at most "
                         f"that, leave it out, or convert the model for more: "
                         f"{longer(path, padded(min(n_ctx, MAX_LENGTH), PAD))}")
    if n_ctx is not None and n_needed > n_ctx:
        raise UsageError(
            f"the documents, the question and the answer need {n_needed:,} tokens and "
            f"--n-ctx is {n_ctx:,}; give at least --n-ctx {n_needed}"
            f"{_memory(n_needed, functools.partial(cache_bytes, path.info))}, or leave it out"
            + (f"; {CUT}" if documents and can_cut else "")
        )
    return n_needed


def too_long(
    n_needed: int, limit: int | None, window: int, characters: float, about: str = "", *,
    documents: Sequence[Document] = (), cache: Callable[[int], int | None] = lambda n_ctx: None,
    can_cut: bool = True, convert: Callable[[int], str] = GENERAL.format,
) -> LampeError:
    """What to do about a text that no context can take: a longer one, less text, or cut it.

    limit       the LaMPE context length, None for plain RoPE
    characters  of the text for each token
    documents   of which the largest is named where there are several
    cache       bytes that a context of so many tokens takes, None where that is not known
    can_cut     as in tokens_to_ask
    convert     the command that converts the model for so many tokens
    """
    said = f"the documents, the question and the answer need {about}{n_needed:,} tokens and "
    said += f"this model supports {limit or window:,}" + ("" if limit else " without LaMPE")
    sensible = SENSIBLE_WINDOWS * window
    ways = []
    if limit and n_needed <= sensible:
        wanted = min(padded(n_needed + (n_needed // 20 if about else 0), PAD), MAX_LENGTH)
        ways.append(f"convert the model for more: {convert(wanted)}{_memory(wanted, cache)}")
    else:
        room = float(f"{(limit or window) * characters:.2g}")
        advice = f"ask about a part of it, of at most about {room:,.0f} characters"
        if limit and limit < sensible:
            more = float(f"{sensible * characters:.2g}")
            advice += (f" (or {more:,.0f}, after {convert(sensible)}"
                       f"{_memory(sensible, cache, ', ')})")
        ways.append(advice)
    named = [each for each in documents if each.name]
    if len(named) > 1:
        largest = max(named, key=lambda each: len(each.text))
        tokens = float(f"{len(largest.text) / max(characters, 1e-9):.2g}")
        ways.append(f"leave out {largest.name}, the largest of {len(named)} (about {tokens:,.0f} "
                    "tokens)")
    else:
        ways.append("give less text")
    return LampeError(f"{said}; {', or '.join([*ways, CUT] if can_cut else ways)}")


def _memory(n_ctx: int, cache: Callable[[int], int | None], before: str = "") -> str:
    """How much the cache of such a context takes, in words; "" where that is not known."""
    needed = cache(n_ctx)
    if needed is None:
        return ""
    text = f"its cache takes {size(needed)}"
    return before + text if before else f" ({text})"


def context_for(n_needed: int, limit: int | None) -> int:
    """The context length to open for `n_needed` tokens, at most `limit` (None: there is none)."""
    wanted = padded(n_needed, PAD)
    return wanted if limit is None else min(wanted, limit)


def open_model(
    path: str | os.PathLike[str], *, n_ctx: int, use_lampe: bool, threads: int | None,
    on_note: Callable[[str], None] = lambda text: None, **options: Any
) -> LampeLlama:
    """Open a model to read with; a plain file gets the values that convert would write.

    on_note  called with a sentence where it does, the values' provenance in it
    """
    from ..backend.llama import LampeLlama

    file = read_file(path)
    lampe: Any = False
    if use_lampe:
        lampe = None if file.own_config is not None else file.config
        if lampe is not None:
            on_note(
                f"{file.path.name} carries no LaMPE metadata; using what 'lampe-gguf convert' "
                f"would write ({shown(lampe.provenance)})"
            )
    if threads is not None:
        options |= {"n_threads": threads, "n_threads_batch": threads}
    return LampeLlama(file, lampe=lampe, n_ctx=n_ctx, **options)
