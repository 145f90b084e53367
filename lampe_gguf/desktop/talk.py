"""One conversation that is open here: the dialogue, and what is going on in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lampe_gguf import Answered, Dialogue, Request

from .words import duration, joined, rate, some


@dataclass(eq=False)
class Talk:
    """What the window has to know of a conversation, beside what the dialogue says itself.

    asking   the request for the answer that is being had, None for none
    adding   requests that read documents for the next line
    line     what is being answered, `documents` what goes along with it
    written  the answer so far
    figures  a line about each answer that was had while it was open, by the turn's number
    """

    dialogue: Dialogue
    asking: Request[Any] | None = None
    adding: int = 0
    line: str = ""
    documents: tuple[str, ...] = ()
    written: str = ""
    figures: dict[int, str] = field(default_factory=dict)

    @property
    def is_asking(self) -> bool:
        return self.asking is not None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said and nothing waits to be read."""
        return not (self.is_asking or self.adding or self.dialogue.turns or self.dialogue.pending
                    or self.dialogue.unsent)


def figures(answer: Answered) -> str:
    """A line about an answer: what was read and written, in which time, and from where."""
    n_read = max(0, answer.prompt_tokens - answer.kept_tokens)
    read = some(n_read, "token") + " read"
    if answer.seconds_reading >= 1:
        read += f" in {duration(answer.seconds_reading)}"
    kept = f"{answer.kept_tokens:,} known before" if answer.kept_tokens else ""
    written = f"{answer.answer_tokens:,} written"
    if answer.seconds_answering > 0 and answer.answer_tokens > 1:
        written += f" at {rate(answer.answer_tokens / answer.seconds_answering)}"
    lines = [joined(["stopped" if answer.is_stopped else "", read, kept, written])]
    return "\n".join([*lines, *(each.said() for each in answer.sources)])
