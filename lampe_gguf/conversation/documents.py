"""Documents from files and standard input, as text."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from ..errors import LampeError, UsageError
from ..shown import shown
from .aside import MissingLibrary, extract
from .gather import gather
from .kinds import encoding_of, kind_of
from .places import has_pages

MOST_BYTES = 2**28  # 16 for each token of the longest context
MOST_SAID = 20  # documents that are named, each with what was read of it
CITE = "Name the document and the page ([page N] begins page N) that your answer is from.\n"

OnProgress = Callable[[int, int], None]  # pages or chapters read, all of them


@dataclass(frozen=True)
class Document:
    """Its name, made safe to show and to be told to a model, and its text.

    replaced  bytes that are no UTF-8 and stand in the text as U+FFFD
    path      of the file that it was read from, absolute; "" for what is none
    pages     how many it has, each begun by "[page N]" in the text; None where that is not known
    left_out  sentences about what is not in the text: pages without any, pictures

    `Document.read` reads a file. A file's text is the same each time.

    >>> from lampe_gguf import Document
    >>> Document("the letter", "Dear Sir ...").name
    'the letter'
    >>> Document.read("book.txt").said()
    'book.txt: 2,000 characters'
    """

    name: str
    text: str
    replaced: int = 0
    path: str = field(default="", compare=False, kw_only=True)
    pages: int | None = field(default=None, kw_only=True)
    left_out: tuple[str, ...] = field(default=(), kw_only=True)

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], *, on_progress: OnProgress | None = None
    ) -> Document:
        """Read a file: text, Markdown, PDF, DOCX, ODT, EPUB or HTML; "-" is standard input.

        Word files, books and web pages become Markdown. All but text needs the extra "documents".
        Calls on_progress(pages or chapters, all of them). Raises LampeError where there is no text
        to be had, with the reason.
        """
        return read_document(os.fspath(path), to_ask=True, on_progress=on_progress)

    def damage(self) -> str | None:
        """A sentence about what was replaced, None where nothing was."""
        if not self.replaced:
            return None
        return (f"{self.replaced:,} bytes of {self.name} are no UTF-8 and are read as \ufffd; if "
                "it is in another encoding, convert it first (iconv)")

    def said(self) -> str:
        """One line: the name, what was read, and what was not."""
        pages = "" if self.pages is None else f"{self.pages:,} page{'s' * (self.pages != 1)}, "
        text = f"{self.name}: {pages}{len(self.text):,} characters"
        return "; ".join([text, *WasRead.of(self).left_out])


@dataclass(frozen=True)
class WasRead:
    """What was read of one document: pages (None: not known), characters, and what was not."""

    name: str
    pages: int | None
    characters: int
    left_out: tuple[str, ...]

    @classmethod
    def of(cls, document: Document) -> WasRead:
        """A document without its text."""
        damage = document.damage()
        left_out = (*document.left_out, *([damage] if damage is not None else []))
        return cls(document.name, document.pages, len(document.text), left_out)


def read_document(
    name: str, *, to_ask: bool = False, label: str | None = None,
    on_progress: OnProgress | None = None,
) -> Document:
    """Read one file, or standard input for "-"; LampeError where it is no UTF-8 text.

    to_ask       for a model to talk about: PDF, DOCX, ODT, EPUB and HTML are read for their text,
                 text with a few bytes that are no UTF-8 will do (at most one in ten), and what no
                 context could hold is not read at all
    label        its name for people and the model; None: the path
    on_progress  called with (pages or chapters, all of them)
    """
    if label is None:
        label = "standard input" if name == "-" else shown(name)
    data = _bytes(name, label, to_ask)
    path = "" if name == "-" else os.path.abspath(name)
    kind = kind_of(data, label) if to_ask else "text"
    if kind != "text":
        found = extract(kind, data, label, on_progress)
        if not found.text.strip():
            raise LampeError(f"{label} has no text; give a document with text in it")
        return Document(label, found.text, path=path, pages=found.pages, left_out=found.left_out)
    encoding = encoding_of(data) or "utf-8-sig"
    replaced = 0
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode(encoding, "replace")
        replaced = text.count("\ufffd") - data.count("\ufffd".encode())
        if encoding != "utf-8-sig":
            raise LampeError(f"{label} is damaged: it begins like {encoding.upper()} and is none; "
                             "convert it to plain text first") from None
    if "\0" in text or (replaced and (not to_ask or replaced * 10 > len(data))):
        raise LampeError(f"{label} is not UTF-8 text; convert it to plain text first")
    if not text.strip():
        raise LampeError(f"{label} is empty; give a document with text in it")
    return Document(label, text, replaced, path=path)


def read_documents(
    names: Iterable[str], *, to_ask: bool = False, on_progress: OnProgress | None = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> list[Document]:
    """Read several, in order; UsageError where standard input is named twice.

    With `to_ask`, names may also be folders and patterns, see gather(): what of a folder cannot be
    read is left out, which on_note is told, as it is what was read of each document.
    """
    if not to_ask:
        listed = list(names)
        if listed.count("-") > 1:
            raise UsageError("standard input (-) can be read only once")
        return [read_document(name) for name in listed]
    gathered = gather(names)
    for closed in gathered.closed:
        on_note(f"not read: {closed}")
    documents: list[Document] = []
    failed: list[LampeError] = []
    n_files = len(gathered.files)
    for number, found in enumerate(gathered.files, 1):
        try:
            document = read_document(found.path, to_ask=True, label=found.label,
                                     on_progress=on_progress if n_files == 1 else None)
        except MissingLibrary:
            raise
        except LampeError as error:
            if not found.in_folder:
                raise
            failed.append(error)
            on_note(f"not read: {error}")
            continue
        documents.append(document)
        if on_progress is not None and n_files > 1:
            on_progress(number, n_files)
        if sum(len(each.text) for each in documents) > MOST_BYTES:
            raise LampeError(f"the documents have more than {MOST_BYTES // 2**20} MB of text "
                             "together, which no model's context holds; give fewer")
    if gathered.files and not documents:
        raise failed[0]
    for document in documents[:MOST_SAID]:
        on_note(document.said())
    if more := documents[MOST_SAID:]:
        characters = sum(len(each.text) for each in more)
        on_note(f"and {len(more):,} more documents: {characters:,} characters")
        for document in more:
            if document.left_out or document.replaced:
                on_note(document.said())
    if (said := gathered.said()) is not None:
        on_note(said)
    return documents


# a text as it is (str), a file or a folder (a path that is no str), or a document
Text = str | os.PathLike[str] | Document


def as_documents(
    texts: Text | Sequence[Text], *, to_ask: bool = False,
    on_note: Callable[[str], None] = lambda text: None, on_progress: OnProgress | None = None,
) -> list[Document]:
    """Texts as a library's caller gives them, a str under a name; raises as read_documents does.

    to_ask, on_note, on_progress  as in read_documents
    """
    listed = [texts] if isinstance(texts, (str, os.PathLike, Document)) else list(texts)
    found: list[Document] = []
    for number, each in enumerate(listed, 1):
        if isinstance(each, str):
            each = Document("the text" if len(listed) == 1 else f"text {number}", each)
        if isinstance(each, Document):
            found.append(each)
        else:
            found += read_documents([os.fspath(each)], to_ask=to_ask, on_note=on_note,
                                    on_progress=on_progress)
    return found


def _bytes(name: str, label: str, to_ask: bool) -> bytes:
    """All of a file, or of standard input for "-"."""
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
    return data


def _read(file: BinaryIO, to_ask: bool) -> bytes | None:
    """All of it; None where it is more than MOST_BYTES of a file to be asked about."""
    if not to_ask:
        return file.read()
    if file.seekable() and os.fstat(file.fileno()).st_size > MOST_BYTES:
        return None
    data = file.read(MOST_BYTES + 1)
    return None if len(data) > MOST_BYTES else data


def as_message(documents: list[Document], question: str) -> str:
    """What the user says to the model: each document under its name, then the question.

    With documents that have pages, the model is asked to name them. It may not do so: sources.py
    finds what it took over, whatever it says.
    """
    parts = [f"Document: {each.name}\n\n{each.text.strip()}\n" for each in documents]
    # by the text and not by `pages`, which a conversation that is kept does not have
    if any(has_pages(each.text) for each in documents):
        parts.append(CITE)
    return "\n".join([*parts, question])
