"""What requests give."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..conversation.documents import Document
from ..conversation.sources import Source
from ..errors import LampeError
from ..method.config import LampeConfig
from ..method.positions import Plan
from ..model.architectures import qualifies
from ..model.choose import ModelFile, choose_config


@dataclass(frozen=True)
class Examined:
    """What a model's file is, read off its header.

    path            of the file
    name            that the file gives the model, or the file's own
    bytes           of the file
    window          W, tokens; None where the file does not say
    context_length  the longest input, tokens: with LaMPE, or the window where it cannot be had
    is_converted    whether the file carries LaMPE's values
    config          these, or what convert would write; None where LaMPE cannot extend the model
    refusal         why it cannot, None where it can

    >>> from lampe_gguf import Session
    >>> with Session() as session:
    ...     found = session.examine("model.gguf").result()
    >>> found.architecture, found.window, found.context_length, found.is_converted, found.refusal
    ('llama', 8192, 32768, False, None)
    """

    path: str
    name: str
    bytes: int
    architecture: str
    window: int | None
    context_length: int | None
    is_converted: bool
    config: LampeConfig | None
    refusal: str | None

    @property
    def provenance(self) -> str:
        """Where the values come from, "" without any."""
        return "" if self.config is None else self.config.provenance

    @classmethod
    def of(cls, file: ModelFile) -> Examined:
        """Raises LampeError where LaMPE's metadata in the file cannot be used."""
        info, config = file.info, file.own_config
        is_converted = config is not None
        refusal = None if is_converted else qualifies(info.architecture, info.values)
        if config is None and refusal is None:
            try:
                config = choose_config(info)
            except LampeError as error:
                refusal = str(error)
        try:
            n_bytes = os.stat(file.path).st_size
        except OSError as error:
            raise LampeError(f"cannot read {file.path}: {error.strerror}") from None
        return cls(os.path.abspath(file.path), info.name or Path(file.path).name, n_bytes,
                   info.architecture, info.window,
                   info.window if config is None else config.context_length, is_converted, config,
                   refusal)


@dataclass(frozen=True)
class Opened(Examined):
    """A model that is open.

    config     the values in force, None for plain RoPE
    n_ctx      context length, tokens; questions that need more make it longer
    attention  which runs: "fused", "portable", or "off" for plain RoPE

    >>> from lampe_gguf import Session
    >>> with Session("model.gguf", n_ctx=512) as session:
    ...     found = session.opening.result()
    >>> found.n_ctx, found.attention
    (512, 'fused')
    """

    n_ctx: int = 0
    attention: str = ""


@dataclass(frozen=True)
class Counted:
    """A document, with the tokens that it takes.

    tokens  None where no model is open whose tokens they would be
    share   of the longest context, 0 to 1 and above; None likewise

    >>> from lampe_gguf import Document, Session
    >>> with Session("model.gguf", n_ctx=512) as session:
    ...     counted = session.dialogue().add(Document("a letter", "Dear Sir")).result()
    >>> [(each.document.name, each.tokens, f"{each.share:.4f}") for each in counted]
    [('a letter', 2, '0.0001')]
    """

    document: Document
    tokens: int | None = None
    share: float | None = None


@dataclass(frozen=True)
class Answered:
    """An answer, and what it took; seconds are wall-clock.

    is_stopped     it was cancelled; what was written is a turn of the conversation
    prompt_tokens  of the whole conversation, documents included
    kept_tokens    of these, that were loaded and not read
    plan           the map of the newest token, None for plain RoPE
    sources        where words of the answer stand in the documents, often none

    >>> from lampe_gguf import Session
    >>> with Session("model.gguf", n_ctx=512) as session:
    ...     answer = session.dialogue(max_tokens=4).ask("Who are you?").result()
    >>> answer.answer_tokens <= 4, answer.is_stopped, answer.plan.is_identity
    (True, False, True)
    """

    text: str
    is_stopped: bool
    prompt_tokens: int
    answer_tokens: int
    kept_tokens: int
    seconds_reading: float
    seconds_answering: float
    seconds_loading: float
    n_ctx: int
    plan: Plan | None
    sources: tuple[Source, ...]
