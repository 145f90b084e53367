"""Open a model for the commands: how long a context it needs, and the progress line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import backend, metadata
from .config import LampeConfig
from .console import say
from .convert import choose_config, require_qualified
from .errors import LampeError, UsageError
from .gguf_file import GGUFFile
from .model import read_model
from .native_path import NativePath
from .progress import Progress
from .reply import chat_tokens
from .shown import shown

if TYPE_CHECKING:
    from .runtime import LampeLlama

PAD = 256  # llama.cpp rounds a context up to a multiple of this


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
    module = backend.llama_cpp()
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


def count_tokens(path: Path, message: str) -> int:
    """Number of tokens of one user's message in the model's chat template.

    Loads the vocabulary alone: the model is opened with a context that fits.
    """
    with vocabulary(path) as vocab:
        return len(chat_tokens(vocab, [{"role": "user", "content": message}]))


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


def context_for(n_needed: int, n_ctx: int | None, limit: int | None) -> int:
    """The context length to open for `n_needed` tokens.

    n_ctx  what the user asked for, None to choose
    limit  the LaMPE context length, None for plain RoPE, which has no limit of its own
    """
    if n_ctx is not None:
        if n_needed > n_ctx:
            raise UsageError(
                f"the documents, the question and the answer need {n_needed:,} tokens and "
                f"--n-ctx is {n_ctx:,}; give at least --n-ctx {n_needed}, or leave it out"
            )
        return n_ctx
    wanted = -(-n_needed // PAD) * PAD
    if limit is not None and n_needed > limit:
        raise LampeError(
            f"the documents, the question and the answer need {n_needed:,} tokens and this model "
            f"supports {limit:,}; give less text, or convert the model with "
            f"--context-length {wanted}"
        )
    return wanted if limit is None else min(wanted, limit)


def open_model(
    path: Path, *, n_ctx: int, use_lampe: bool, threads: int | None, **options: Any
) -> LampeLlama:
    """Open a model for a command; a plain file gets the values that convert would write."""
    from .runtime import LampeLlama

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
def reading_progress(llm: LampeLlama) -> Iterator[None]:
    """Show a progress line whenever `llm` reads a prompt, while the context lasts."""
    bar: Progress | None = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None or bar.total != total or done <= bar.done:
            bar = Progress("reading", total, "tokens")
        bar.advance(done - bar.done)
        if done >= total:
            bar.clear()
            bar = None

    llm.progress = show
    try:
        yield
    finally:
        llm.progress = None
        if bar is not None:
            bar.clear()
