"""A conversation as JSON: what is saved of it, and what it is read from.

A document's text stands in a file once, under its SHA-256, and turns name it by that: so a
conversation needs no other file to go on, whatever has become of the documents since.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import LampeError
from ..shown import SURROGATES, shown
from .aside import MissingLibrary
from .documents import Document, read_document
from .setting import Setting
from .turn import Talk, Turn, messages_of

FORMAT = "lampe-gguf chat"
VERSION = 1

# what a value of the wrong kind, or one that is missing, comes to where it is used
WRONG = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)


@dataclass
class Conversation:
    """What was kept of a conversation; a Talk.

    setting  with what it was had, None where the file does not say
    started  seconds since 1970, 0.0 where the file does not say
    id       of its journal, "" where it has none
    notes    sentences about what has been lost of it
    """

    turns: list[Turn] = field(default_factory=list)
    pending: list[Document] = field(default_factory=list)
    unsent: str | None = None
    setting: Setting | None = None
    started: float = 0.0
    id: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def documents(self) -> list[Document]:
        """All documents, in the order in which they came, each once."""
        each = [*(document for turn in self.turns for document in turn.documents), *self.pending]
        return list(dict.fromkeys(each))

    def changed_documents(self) -> list[str]:
        """A sentence for each document whose file has another text by now.

        What is gone is no news: the conversation has the text.
        """
        return [f"{document.name} has changed since; the conversation keeps the text that it had"
                for document in self.documents if self._has_changed(document)]

    def _has_changed(self, document: Document) -> bool:
        try:
            # set by whatever puts another file there, too: then nothing has to be read again
            if not document.path or os.stat(document.path).st_ctime < self.started:
                return False
            return read_document(document.path, to_ask=True).text != document.text
        except (OSError, ValueError, MissingLibrary):
            return False
        except LampeError:  # it is no text any more
            return True


def fingerprint(text: str) -> str:
    """SHA-256 of a text; stray bytes in it (of a path) count as what they are."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def reference(document: Document) -> dict[str, Any]:
    """A document without its text, which stands elsewhere in the file."""
    return {"name": document.name, "sha256": fingerprint(document.text),
            "replaced": document.replaced, "path": document.path}


def referred(references: Iterable[Mapping[str, Any]], texts: Mapping[str, str]) -> list[Document]:
    """The documents again; raises one of WRONG where these are none."""
    return [
        Document(str(each["name"]), texts[each["sha256"]], int(each.get("replaced", 0)),
                 path=str(each.get("path", "")))
        for each in references
    ]


def as_json(talk: Talk, setting: Setting | None, **more: object) -> str:
    """A whole conversation as a text: `from_json` reads it; other programs find "messages" in it.

    more  further values, by name
    """
    documents = [*(each for turn in talk.turns for each in turn.documents), *talk.pending]
    value = {
        "format": FORMAT,
        "version": VERSION,
        **more,
        **({} if setting is None else setting.as_json()),
        "documents": {fingerprint(each.text): each.text for each in documents},
        "turns": [
            {"line": turn.line, "documents": [*map(reference, turn.documents)],
             "answer": turn.answer}
            for turn in talk.turns
        ],
        "pending": [*map(reference, talk.pending)],
        "unsent": talk.unsent,
        "messages": messages_of(talk.turns),
    }
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return SURROGATES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def from_json(value: Any, name: str) -> Conversation:
    """A conversation from what as_json wrote, or from messages alone, as earlier versions did.

    name  of the file, for what is wrong with it
    Raises LampeError for what is neither.
    """
    try:
        if "format" not in value:
            return _from_messages(value["messages"])
        check_version(value, name)
        texts = {str(key): str(text) for key, text in value["documents"].items()}
        return Conversation(
            [_turn(each, texts) for each in value["turns"]],
            referred(value["pending"], texts),
            None if value["unsent"] is None else str(value["unsent"]),
            Setting.from_json(value) if "model" in value else None,
            moment(value.get("started", 0.0)),
        )
    except WRONG:
        raise LampeError(
            f"{shown(name)} is no saved conversation; give a file that /save wrote"
        ) from None


def moment(value: Any) -> float:
    """Seconds since 1970, raises one of WRONG for what no clock shows."""
    seconds = float(value)
    try:
        time.localtime(seconds)
        time.gmtime(seconds)
    except OSError as error:
        raise ValueError(value) from error
    return seconds


def check_version(value: Mapping[str, Any], name: str) -> None:
    """LampeError for a file of a later version; raises one of WRONG for none of ours."""
    if value["format"] != FORMAT or not isinstance(value["version"], int):
        raise ValueError(value["format"])
    if value["version"] > VERSION:
        raise LampeError(
            f"{shown(name)} was written by a later lampe-gguf (format {value['version']}, this one "
            f"reads {VERSION}); install that one"
        )


def _turn(value: Mapping[str, Any], texts: Mapping[str, str]) -> Turn:
    line, answer = value["line"], value["answer"]
    if not isinstance(line, str) or not isinstance(answer, str):
        raise ValueError(line)
    return Turn(tuple(referred(value["documents"], texts)), line, answer)


def _from_messages(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """Documents stay what they are there: a part of what the user said."""
    found = Conversation()
    for message in messages:
        role, content = message["role"], message["content"]
        is_answer = found.unsent is not None
        if role != ("assistant" if is_answer else "user") or not isinstance(content, str):
            raise ValueError(role)
        if found.unsent is None:
            found.unsent = content
        else:
            found.turns.append(Turn((), found.unsent, content))
            found.unsent = None
    return found
