"""What was said in a conversation, turn by turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .documents import Document, as_message
from .prompt import Message


@dataclass(frozen=True)
class Turn:
    """What the user said, with the documents that went along, and the answer.

    >>> from lampe_gguf import Document, Turn
    >>> turn = Turn((Document("a letter", "Dear Sir"),), "Who is it to?", "To a man.")
    >>> turn.line, turn.documents[0].name
    ('Who is it to?', 'a letter')
    """

    documents: tuple[Document, ...]
    line: str
    answer: str = ""

    @property
    def message(self) -> Message:
        return {"role": "user", "content": as_message(list(self.documents), self.line)}


class Talk(Protocol):
    """Where a conversation stands, as a Chat has it.

    turns    what was said so far
    pending  documents that go along with the next line
    unsent   the line that has no answer yet
    """

    turns: list[Turn]
    pending: list[Document]
    unsent: str | None


def messages_of(turns: Sequence[Turn]) -> list[Message]:
    """Turns as a chat template takes them."""
    said: list[Message] = []
    for turn in turns:
        said += [turn.message, {"role": "assistant", "content": turn.answer}]
    return said
