"""The likeliest answer to one prompt after another; what they share is read once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...backend import api
from ...conversation.reply import token_bytes
from .prompting import Tokens

if TYPE_CHECKING:
    from ...backend.llama import LampeLlama


def can_share(llm: LampeLlama) -> bool:
    """Whether what was read of one prompt is right for another that begins like it.

    Not under the length policy "prompt": there, keys depend on the length of the whole prompt.
    """
    config = llm.lampe_config
    return config is None or config.length_policy == "causal"


def answer(
    llm: LampeLlama,
    prompt: Tokens,
    max_tokens: int,
    *,
    share: bool = True,
    on_work: Callable[[int], None] | None = None,
) -> tuple[str, int]:
    """The likeliest continuation of a prompt, up to where the model ends it: text, tokens read.

    share    keep what the context holds of the prompt; else everything is read anew
    on_work  called with numbers of tokens, read or written, as they are done
    """
    module = api.llama_cpp()
    tell = on_work or (lambda n: None)
    if not share:
        llm.reset()
    read = 0

    def progress(done: int, total: int) -> None:
        nonlocal read
        tell(done - read)
        read = done

    llm.progress = progress
    data = b""
    # generate keeps the longest beginning that the context already holds, and drops the rest
    stream = llm.generate(prompt.tolist(), temp=0.0)
    try:
        for n, token in enumerate(stream, 1):
            if module.llama_vocab_is_eog(llm._model.vocab, token):
                break
            data += token_bytes(llm._model, token)
            tell(1)
            if n >= max_tokens:
                break
    finally:
        stream.close()
        llm.progress = None
    return data.decode("utf-8", "replace").strip(), read
