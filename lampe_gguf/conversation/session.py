"""Open a model for the commands: how long a context it needs, and the progress line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backend import api
from ..backend.native_path import NativePath
from ..cli.console import say
from ..cli.progress import Progress
from ..container.reader import GGUFFile, padded
from ..convert import choose_config, require_qualified
from ..errors import LampeError, UsageError
from ..method.config import LampeConfig
from ..method.fields import MAX_LENGTH
from ..model import metadata
from ..model.description import read_model
from ..shown import shown
from .documents import Document, as_message
from .length import OnProgress, count_up_to
from .reply import chat_tokens

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

PAD = 256  # llama.cpp rounds a context up to a multiple of this
SENSIBLE_WINDOWS = 8  # further, answers are guesses: what is longer is better asked about in parts
PLAIN_WINDOWS = 16  # of plain RoPE, to see the difference; it reads nothing beyond one


def file_config(path: Path) -> tuple[LampeConfig | None, LampeConfig]:
    """The configuration in a model's file (or None), and the one to use.

    Raises LampeError where the file carries none and LaMPE cannot extend the model.
    """
    with GGUFFile(path) as file:
        model = read_model(file)
        found = metadata.read(file, model.architecture)
        if found is not None:
            return found, found
        require_qualified(model)
        return None, choose_config(model)


@contextmanager
def vocabulary(path: Path) -> Iterator[Any]:
    """A model's vocabulary alone, as the internal LlamaModel; LampeError where it cannot be read.
    """
    with GGUFFile(path):  # says what is wrong with a file better than llama.cpp does
        pass
    module = api.llama_cpp()
    from llama_cpp import _internals as internals

    params = module.llama_model_default_params()
    params.vocab_only = True
    try:
        model = internals.LlamaModel(
            path_model=NativePath(os.fspath(path)), params=params, verbose=False
        )
    except ValueError as error:
        raise LampeError(str(error)) from None
    try:
        yield model
    finally:
        model.close()


def longest_input(path: Path, use_lampe: bool) -> tuple[int | None, int]:
    """The LaMPE context length (None for plain RoPE, which has none), and the window (0: unknown).

    Raises LampeError where LaMPE cannot extend the model.
    """
    if use_lampe:
        config = file_config(path)[1]
        return config.context_length, config.window
    with GGUFFile(path) as file:
        return None, read_model(file).window or 0


def tokens_to_ask(
    path: Path, documents: Sequence[Document], question: str, *, use_lampe: bool = True,
    n_answer: int = 0, n_ctx: int | None = None,
) -> int:
    """Tokens that documents, question and an answer of `n_answer` need in the chat template.

    Loads the vocabulary alone: the model is opened with a context that fits. Raises UsageError
    where `n_ctx` does not, LampeError where none that the model supports does; that is seen
    before all of a long text is tokenised, and progress is shown meanwhile.
    """
    limit, window = longest_input(path, use_lampe)
    most = limit or max(n_ctx or 0, PLAIN_WINDOWS * window) or MAX_LENGTH
    texts = [*(document.text for document in documents), question]
    with vocabulary(path) as vocab:
        with progress_line("counting", "characters") as show:
            count = count_up_to(vocab, texts, most, show)
        if count.is_too_long:
            raise too_long(count.tokens + n_answer, limit, window, count.characters, "about ")
        message = {"role": "user", "content": as_message(list(documents), question)}
        n_needed = len(chat_tokens(vocab, [message])) + n_answer
    if limit is not None and n_needed > limit:
        raise too_long(n_needed, limit, window, count.characters)
    if n_ctx is not None and n_needed > n_ctx:
        raise UsageError(
            f"the documents, the question and the answer need {n_needed:,} tokens and "
            f"--n-ctx is {n_ctx:,}; give at least --n-ctx {n_needed}, or leave it out"
        )
    return n_needed


def too_long(
    n_needed: int, limit: int | None, window: int, characters: float, about: str = ""
) -> LampeError:
    """What to do about a text that no context can take.

    limit       the LaMPE context length, None for plain RoPE
    characters  of the text for each token
    """
    said = f"the documents, the question and the answer need {about}{n_needed:,} tokens and "
    said += f"this model supports {limit or window:,}" + ("" if limit else " without LaMPE")
    sensible = SENSIBLE_WINDOWS * window
    if limit and n_needed <= sensible:
        wanted = min(padded(n_needed + (n_needed // 20 if about else 0), PAD), MAX_LENGTH)
        return LampeError(f"{said}; give less text, or convert the model with --context-length "
                          f"{wanted}")
    room = float(f"{(limit or window) * characters:.2g}")
    advice = f"ask about a part of it, of at most about {room:,.0f} characters"
    if limit and limit < sensible:
        more = float(f"{sensible * characters:.2g}")
        advice += (f" (or {more:,.0f}, after converting the model with --context-length "
                   f"{sensible})")
    return LampeError(f"{said}; {advice}")


def read_tokens(model: Any, text: str, length: int, option: str = "--length") -> list[int]:
    """The first `length` tokens of a text; LampeError where it has fewer.

    model  a Llama, or what vocabulary() gives
    """
    # no need to tokenise a library: take more of it until it is enough
    for n_chars in (length * 16, len(text)):
        tokens: list[int] = model.tokenize(text[:n_chars].encode(), True, False)
        if len(tokens) >= length:
            return tokens[:length]
    raise LampeError(
        f"the text has {len(tokens):,} tokens and {option} asks for {length:,}; give a longer "
        f"text, or at most {option} {len(tokens)}"
    )


def excerpt(tokens: list[int], start: int, stop: int, begin: int | None) -> list[int]:
    """tokens[start:stop] as a text of their own: where texts begin with BOS, so does this.

    It takes the first token's place, so that the count is what it would be without.
    """
    found = tokens[start:stop]
    if begin is not None and found:
        found[0] = begin
    return found


def context_for(n_needed: int, limit: int | None) -> int:
    """The context length to open for `n_needed` tokens, at most `limit` (None: there is none)."""
    wanted = padded(n_needed, PAD)
    return wanted if limit is None else min(wanted, limit)


def open_model(
    path: Path, *, n_ctx: int, use_lampe: bool, threads: int | None, **options: Any
) -> LampeLlama:
    """Open a model for a command; a plain file gets the values that convert would write."""
    from ..backend.llama import LampeLlama

    lampe: Any = False
    if use_lampe:
        found, config = file_config(path)
        lampe = None if found is not None else config
        if found is None:
            say(
                f"{path.name} carries no LaMPE metadata; using what 'lampe-gguf convert' would "
                f"write ({shown(config.provenance)})"
            )
    if threads is not None:
        options |= {"n_threads": threads, "n_threads_batch": threads}
    return LampeLlama(path, lampe=lampe, n_ctx=n_ctx, **options)


@contextmanager
def progress_line(label: str, unit: str) -> Iterator[OnProgress]:
    """A function of (done, total) that shows a line of progress for one job after another."""
    bar: Progress | None = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None or bar.total != total or done <= bar.done:
            bar = Progress(label, total, unit)
        bar.advance(done - bar.done)
        if done >= total:
            bar.clear()
            bar = None

    try:
        yield show
    finally:
        if bar is not None:
            bar.clear()


@contextmanager
def reading_progress(llm: LampeLlama) -> Iterator[None]:
    """Show a progress line whenever `llm` reads a prompt, while the context lasts."""
    with progress_line("reading", "tokens") as show:
        llm.progress = show
        try:
            yield
        finally:
            llm.progress = None
