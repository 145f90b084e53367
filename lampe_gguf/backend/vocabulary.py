"""A model's vocabulary alone, and the tokens of long texts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..container.reader import GGUFFile
from ..errors import LampeError
from ..model.choose import ModelFile
from . import api
from .native_path import NativePath
from .quiet import quiet


@contextmanager
def vocabulary(path: str | os.PathLike[str]) -> Iterator[Any]:
    """A model's vocabulary alone, as the internal LlamaModel; LampeError where it cannot be read.
    """
    if not isinstance(path, ModelFile):
        with GGUFFile(path):  # says what is wrong with a file better than llama.cpp does
            pass
    module = api.llama_cpp()
    from llama_cpp import _internals as internals

    params = module.llama_model_default_params()
    params.vocab_only = True
    try:
        with quiet():
            model = internals.LlamaModel(
                path_model=NativePath(os.fsdecode(path)), params=params, verbose=False
            )
    except ValueError as error:
        raise LampeError(str(error)) from None
    try:
        yield model
    finally:
        model.close()


def beginning(model: Any) -> int | None:
    """The token that every text of a model begins with (BOS), None where there is none.

    model  the internal LlamaModel of a Llama (`_model`), or one with the vocabulary alone
    """
    bos = int(model.token_bos())
    return bos if model.add_bos_token() and bos != -1 else None


def read_tokens(
    model: Any, text: str, length: int, option: str = "--lengths", *,
    behind: int = 0, what: str = "", least: int = 1, fewer: str = "",
) -> list[int]:
    """The first `length` tokens of a text and `behind` more; LampeError where it has fewer.

    model   a Llama, or what vocabulary() gives
    behind  tokens that are needed whatever `option` says, and `what` they are for
    least   that `option` takes, and how to need `fewer` behind it
    """
    needed = length + behind
    # no need to tokenise a library: take more of it until it is enough
    for n_chars in (needed * 16, len(text)):
        tokens: list[int] = model.tokenize(text[:n_chars].encode(), True, False)
        if len(tokens) >= needed:
            return tokens[:needed]
    said = f"the text has {len(tokens):,} tokens and {option} asks for {length:,}"
    if behind:
        said += f", which takes {behind:,} more {what}"
    most = len(tokens) - behind
    if most >= least:
        raise LampeError(f"{said}; give a longer text, or at most {option} {most}")
    raise LampeError(f"{said}; it is too short for any: give one of at least {least + behind:,} "
                     f"tokens{fewer}")


def excerpt(tokens: list[int], start: int, stop: int, begin: int | None) -> list[int]:
    """tokens[start:stop] as a text of their own: where texts begin with BOS, so does this.

    It takes the first token's place, so that the count is what it would be without.
    """
    found = tokens[start:stop]
    if begin is not None and found:
        found[0] = begin
    return found
