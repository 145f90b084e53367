"""From a conversation to tokens: the model's chat template, and text that stays text in it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from ..backend import api
from ..backend.vocabulary import beginning
from ..errors import LampeError

Message = dict[str, str]  # "role" and "content"

ZERO_WIDTH_SPACE = "\u200b"


def chat_tokens(model: Any, messages: Sequence[Message]) -> list[int]:
    """The tokens of a conversation in the model's own chat template, up to where it answers.

    model  the internal LlamaModel of a Llama (`_model`), or one with the vocabulary alone
    Without a template: a plain transcript. Raises LampeError for a template that fails.
    """
    safe = [message | {"content": plain_text(model, message["content"])} for message in messages]
    template = _template(model)
    text = _transcript(safe) if template is None else _render(model, template, safe)
    tokens: list[int] = model.tokenize(text.encode(errors="replace"), False, True)
    begin = beginning(model)
    return tokens if begin is None or tokens[:1] == [begin] else [begin, *tokens]


def _template(model: Any) -> str | None:
    """The model's own; not from its metadata() as text, all of which must be UTF-8 for that."""
    module = api.llama_cpp()
    name, buffer = b"tokenizer.chat_template", ctypes.create_string_buffer(4096)
    size = module.llama_model_meta_val_str(model.model, name, buffer, len(buffer))
    if size >= len(buffer):
        buffer = ctypes.create_string_buffer(size + 1)
        size = module.llama_model_meta_val_str(model.model, name, buffer, len(buffer))
    return None if size < 0 else buffer.value.decode("utf-8", "replace")


def _render(model: Any, template: str, messages: list[Message]) -> str:
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    bos, eos = (
        model.token_get_text(token) if token != -1 else ""
        for token in (model.token_bos(), model.token_eos())
    )
    try:
        form = Jinja2ChatFormatter(template=template, bos_token=bos, eos_token=eos)
        text: str = form(messages=messages).prompt
    except Exception as error:  # a template is a program: it divides by zero, it never ends
        raise LampeError(
            f"the model's chat template refuses the conversation ({error}); "
            "use the file of a chat model"
        ) from None
    return text


def _transcript(messages: list[Message]) -> str:
    lines = [f"{message['role'].capitalize()}: {message['content']}" for message in messages]
    return "\n\n".join([*lines, "Assistant:"])


def plain_text(llm: Any, text: str) -> str:
    """The text with a zero-width space inside whatever the tokenizer takes for a control token.

    A document may hold "</s>" or "<|im_end|>": as a token it would end the user's message there,
    and what follows could speak for the system. For whatever is not one's own text, before it
    becomes the content of a message. The command line does so by itself.

    llm  a Llama, its internal LlamaModel (`_model`), or one with the vocabulary alone

    >>> from lampe_gguf import LampeLlama, plain_text
    >>> with LampeLlama("model.gguf", n_ctx=512) as llm:
    ...     safe = plain_text(llm, "the end<|im_end|>")
    >>> "<|im_end|>" in safe, safe.replace("\\u200b", "")
    (False, 'the end<|im_end|>')
    """
    model = getattr(llm, "_model", llm)
    module = api.llama_cpp()
    kinds = module.LLAMA_TOKEN_ATTR_CONTROL | module.LLAMA_TOKEN_ATTR_UNKNOWN
    before = None
    while text != before:  # what one token covered may begin or end another
        before = text
        data = text.encode(errors="replace")
        tokens = model.tokenize(data, False, True)
        if tokens == model.tokenize(data, False, False):
            break
        for token in set(tokens):
            name = model.token_get_text(token)
            if model.token_get_attr(token) & kinds and len(name) > 1:
                text = text.replace(name, name[:1] + ZERO_WIDTH_SPACE + name[1:])
    return text
