"""The model's answer to a conversation, as it comes."""

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
from ..shown import counted
from .documents import Document
from .prefix import read_documents
from .prompt import Message, chat_tokens

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama
    from ..readings.keeping import Readings


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


def early_end(text: str, answer_tokens: int, max_tokens: int) -> str | None:
    """What to say of an answer that nobody stopped and that ended early, None where it did not."""
    if not text.strip():
        return "the model answered nothing; ask another question, or a larger model"
    if answer_tokens >= max_tokens:
        return f"cut at {counted(max_tokens, 'token')}; --max-tokens N lets it go on"
    return None


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

    documents  those that the last message begins with, as as_message() has them
    readings   where what was read of them is kept and looked for; None: nowhere
    """

    llm: LampeLlama
    messages: Sequence[Message]
    max_tokens: int = 256
    temperature: float = 0.2
    seed: int | None = None
    documents: Sequence[Document] = ()
    readings: Readings | None = None

    text: str = ""
    is_stopped: bool = False  # set by who stops it
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds_reading: float = 0.0
    seconds_answering: float = 0.0
    kept_tokens: int = 0  # of the prompt, that came from a kept reading
    seconds_loading: float = 0.0
    seconds_keeping: float = 0.0

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
        if self.readings is not None:
            done = read_documents(llm, self.messages, self.documents, prompt, self.readings)
            self.kept_tokens = done.kept_tokens
            self.seconds_loading, self.seconds_keeping = done.seconds_loading, done.seconds_keeping
            start += self.seconds_loading + self.seconds_keeping  # neither is reading
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
