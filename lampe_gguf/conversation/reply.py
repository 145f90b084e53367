"""From a conversation to the model's answer: its chat template, its tokens, the stream of text."""

from __future__ import annotations

import codecs
import ctypes
import random
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..backend import api
from ..errors import LampeError

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

Message = dict[str, str]  # "role" and "content"

ZERO_WIDTH_SPACE = "\u200b"


def beginning(model: Any) -> int | None:
    """The token that every text of a model begins with (BOS), None where there is none.

    model  the internal LlamaModel of a Llama (`_model`), or one with the vocabulary alone
    """
    bos = int(model.token_bos())
    return bos if model.add_bos_token() and bos != -1 else None


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
    from jinja2 import TemplateError
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    bos, eos = (
        model.token_get_text(token) if token != -1 else ""
        for token in (model.token_bos(), model.token_eos())
    )
    try:
        form = Jinja2ChatFormatter(template=template, bos_token=bos, eos_token=eos)
        text: str = form(messages=messages).prompt
    except (TemplateError, TypeError, ValueError) as error:
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


def token_bytes(model: Any, token: int) -> bytes:
    """The bytes that a token stands for, none for a control token."""
    module = api.llama_cpp()
    size = 64
    while True:
        buffer = ctypes.create_string_buffer(size)
        n = module.llama_token_to_piece(model.vocab, token, buffer, size, 0, False)
        if n >= 0:
            return buffer.raw[:n]
        size = -n


class ContextFull(LampeError):
    """A conversation that does not fit: it needs `needed` tokens and the context holds `holds`."""

    def __init__(self, needed: int, holds: int) -> None:
        super().__init__(
            f"the conversation has {needed:,} tokens and the context holds {holds:,}; give less "
            "text or a larger --n-ctx; in a chat, /reset forgets what was said"
        )
        self.needed = needed
        self.holds = holds


@dataclass
class Reply:
    """The model's answer; iterate for its text as it comes, in whole characters.

    Fills in, as it goes: the text so far, how many tokens were read and answered, the seconds
    that each took. Raises ContextFull where the conversation does not fit into the context.
    """

    llm: LampeLlama
    messages: Sequence[Message]
    max_tokens: int = 256
    temperature: float = 0.2
    seed: int | None = None

    text: str = ""
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds_reading: float = 0.0
    seconds_answering: float = 0.0

    def __iter__(self) -> Generator[str, None, None]:
        module = api.llama_cpp()
        llm, model = self.llm, self.llm._model
        prompt = chat_tokens(model, self.messages)
        self.prompt_tokens = len(prompt)
        room = llm.n_ctx() - len(prompt)
        if room < 1:
            raise ContextFull(len(prompt), llm.n_ctx())
        # the same every time without a seed would look as if there were one
        llm.set_seed(random.getrandbits(31) if self.seed is None else self.seed)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        start = first = time.monotonic()
        stream = llm.generate(prompt, temp=self.temperature)
        try:
            for token in stream:
                if not self.answer_tokens:
                    first = time.monotonic()
                    self.seconds_reading = first - start
                if module.llama_vocab_is_eog(model.vocab, token):
                    break
                self.answer_tokens += 1
                yield from self._piece(decoder.decode(token_bytes(model, token)))
                self.seconds_answering = time.monotonic() - first
                if self.answer_tokens >= min(self.max_tokens, room):
                    break
            yield from self._piece(decoder.decode(b"", final=True))
        finally:
            stream.close()

    def _piece(self, piece: str) -> Generator[str, None, None]:
        if not self.text:
            piece = piece.lstrip()  # many tokenizers begin every text with a space
        if piece:
            self.text += piece
            yield piece
