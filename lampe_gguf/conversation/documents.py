"""Documents from files and standard input, as text."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from ..errors import LampeError, UsageError
from ..shown import shown

MOST_BYTES = 2**28  # 16 for each token of the longest context


@dataclass(frozen=True)
class Document:
    """Its name, made safe to show and to be told to a model, and its text.

    replaced  bytes that are no UTF-8 and stand in the text as U+FFFD
    path      of the file that it was read from, absolute; "" for what is none

    >>> from lampe_gguf import Document
    >>> Document("the letter", "Dear Sir ...").name
    'the letter'
    """

    name: str
    text: str
    replaced: int = 0
    path: str = field(default="", compare=False, kw_only=True)

    def damage(self) -> str | None:
        """A sentence about what was replaced, None where nothing was."""
        if not self.replaced:
            return None
        return (f"{self.replaced:,} bytes of {self.name} are no UTF-8 and are read as \ufffd; if "
                "it is in another encoding, convert it first (iconv)")


def read_document(name: str, *, to_ask: bool = False) -> Document:
    """Read one file, or standard input for "-"; LampeError where it is no UTF-8 text.

    to_ask  for a model to talk about: text with a few bytes that are none will do (at most one
            in ten), and what no context could hold is not read at all
    """
    label = "standard input" if name == "-" else shown(name)
    try:
        if name != "-":
            with open(name, "rb") as file:
                data = _read(file, to_ask)
        elif sys.stdin is None:  # a program without a console
            data = b""
        else:
            data = _read(sys.stdin.buffer, to_ask)
    except OSError as error:
        raise LampeError(f"cannot read {label}: {error.strerror}") from None
    except ValueError:  # a NUL in the name, a stream that is closed
        raise LampeError(f"cannot read {label}; give the path of a text file") from None
    if data is None:
        raise LampeError(
            f"{label} has more than {MOST_BYTES // 2**20} MB, which no model's context holds; give "
            "the part that the question is about"
        )
    replaced = 0
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("utf-8-sig", "replace")
        replaced = text.count("\ufffd") - data.count("\ufffd".encode())
    if "\0" in text or (replaced and (not to_ask or replaced * 10 > len(data))):
        raise LampeError(f"{label} is not UTF-8 text; convert it to plain text first")
    if not text.strip():
        raise LampeError(f"{label} is empty; give a document with text in it")
    return Document(label, text, replaced, path="" if name == "-" else os.path.abspath(name))


def read_documents(names: Iterable[str], *, to_ask: bool = False) -> list[Document]:
    """Read several, in order; UsageError where standard input is named twice."""
    listed = list(names)
    if listed.count("-") > 1:
        raise UsageError("standard input (-) can be read only once")
    return [read_document(name, to_ask=to_ask) for name in listed]


# a text as it is (str), a file of one (a path that is no str), or a document
Text = str | os.PathLike[str] | Document


def as_documents(texts: Text | Sequence[Text], *, to_ask: bool = False) -> list[Document]:
    """Texts as a library's caller gives them, a str under a name; raises as read_document does.

    to_ask  as in read_document
    """
    listed = [texts] if isinstance(texts, (str, os.PathLike, Document)) else list(texts)
    found = []
    for number, each in enumerate(listed, 1):
        if isinstance(each, str):
            each = Document("the text" if len(listed) == 1 else f"text {number}", each)
        elif not isinstance(each, Document):
            each = read_document(os.fspath(each), to_ask=to_ask)
        found.append(each)
    return found


def _read(file: BinaryIO, to_ask: bool) -> bytes | None:
    """All of it; None where it is more than MOST_BYTES of a file to be asked about."""
    if not to_ask:
        return file.read()
    if file.seekable() and os.fstat(file.fileno()).st_size > MOST_BYTES:
        return None
    data = file.read(MOST_BYTES + 1)
    return None if len(data) > MOST_BYTES else data


def as_message(documents: list[Document], question: str) -> str:
    """What the user says to the model: each document under its name, then the question."""
    parts = [f"Document: {each.name}\n\n{each.text.strip()}\n" for each in documents]
    return "\n".join([*parts, question])
