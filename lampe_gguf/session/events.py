"""What a request says while it is carried out, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import LampeError


@dataclass(frozen=True)
class Event:
    """Something that happened; the last one of a request is Finished, Stopped or Failed.

    >>> from lampe_gguf import Event, Session
    >>> with Session() as session:
    ...     events = list(session.examine("model.gguf"))
    >>> isinstance(events[-1], Event), type(events[-1]).__name__
    (True, 'Finished')
    """


@dataclass(frozen=True)
class Progress(Event):
    """How far a stage of the work is.

    stage   "loading" the model ("%"), "opening" documents (pages, or files where there are
            several), "counting" their tokens (characters), "restoring" what was read before
            (bytes), "reading" (tokens)
    total   0 where it is not known
    rate    units a second, None where it is too early to say
    eta     seconds that are left of this stage, None likewise
    before  of "reading": tokens that the context holds already, before the first of these

    >>> from lampe_gguf import Progress
    >>> at = Progress("reading", 512, 2048, "tokens", 128.0, 12.0)
    >>> f"{at.stage} {at.done / at.total:.0%}, {at.eta:.0f} s left"
    'reading 25%, 12 s left'
    """

    stage: str
    done: int
    total: int
    unit: str
    rate: float | None = None
    eta: float | None = None
    before: int = 0


@dataclass(frozen=True)
class Token(Event):
    """A piece of the answer, in whole characters.

    >>> from lampe_gguf import Session, Token
    >>> with Session("model.gguf", n_ctx=512) as session:
    ...     request = session.dialogue(max_tokens=4).ask("Who are you?")
    ...     text = "".join(event.text for event in request if isinstance(event, Token))
    >>> text == request.result().text
    True
    """

    text: str


@dataclass(frozen=True)
class Note(Event):
    """A sentence that the user should see: what was not read of a file, say.

    >>> from lampe_gguf import Note, Session
    >>> from pathlib import Path
    >>> with Session() as session:
    ...     request = session.dialogue().add(Path("book.txt"))
    ...     print([event.text for event in request if isinstance(event, Note)])
    ['book.txt: 2,000 characters']
    """

    text: str


@dataclass(frozen=True)
class Finished(Event):
    """It is done, and this is what came out.

    >>> from lampe_gguf import Finished
    >>> Finished("what came out").result
    'what came out'
    """

    result: Any


@dataclass(frozen=True)
class Stopped(Event):
    """It was cancelled; `result` is what there was of it by then, often None.

    >>> from lampe_gguf import Session, Stopped
    >>> with Session("model.gguf", n_ctx=512) as session:
    ...     request = session.dialogue().ask("Tell me a long story.")
    ...     request.cancel()
    ...     last = list(request)[-1]
    >>> isinstance(last, Stopped)
    True
    """

    result: Any = None


@dataclass(frozen=True)
class Failed(Event):
    """It failed; str(error) is a sentence that says why, and what to do.

    >>> from lampe_gguf import Failed, Session
    >>> with Session() as session:
    ...     last = list(session.open("book.txt"))[-1]
    >>> isinstance(last, Failed), "GGUF" in str(last.error)
    (True, True)
    """

    error: LampeError


ENDS = (Finished, Stopped, Failed)
