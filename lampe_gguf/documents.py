"""Documents from files and standard input, as text."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from .errors import LampeError, UsageError


@dataclass(frozen=True)
class Document:
    """Its name as given, and its text."""

    name: str
    text: str


def read_document(name: str) -> Document:
    """Read one file, or standard input for "-"; LampeError where it is no UTF-8 text."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(name, "rb") as file:
                data = file.read()
    except OSError as error:
        raise LampeError(f"cannot read {name}: {error.strerror}") from None
    shown = "standard input" if name == "-" else name
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise LampeError(f"{shown} is not UTF-8 text; convert it to plain text first")
    if not text.strip():
        raise LampeError(f"{shown} is empty; give a document with text in it")
    return Document(shown, text)


def read_documents(names: Iterable[str]) -> list[Document]:
    """Read several, in order; UsageError where standard input is named twice."""
    listed = list(names)
    if listed.count("-") > 1:
        raise UsageError("standard input (-) can be read only once")
    return [read_document(name) for name in listed]


def as_message(documents: list[Document], question: str) -> str:
    """What the user says to the model: each document under its name, then the question."""
    parts = [f"Document: {each.name}\n\n{each.text.strip()}\n" for each in documents]
    return "\n".join([*parts, question])
