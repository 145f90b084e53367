"""Where a document's text is divided: at its pages, or between paragraphs."""

from __future__ import annotations

import re
from dataclasses import dataclass

PAGE = re.compile(r"^\[page ([0-9]{1,9})(?:: no text)?\]$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """A page's text with the mark that begins it; number is None for what stands before all."""

    number: int | None
    text: str


def has_pages(text: str) -> bool:
    """Whether marks of pages stand in a text, which is all that is known of it later."""
    return PAGE.search(text) is not None


def pages_of(text: str) -> list[Page]:
    """A text at the marks of its pages; one without marks is a page without a number."""
    marks = list(PAGE.finditer(text))
    ends = [each.start() for each in marks[1:]] + [len(text)]
    pages = [Page(int(mark[1]), text[mark.start() : end].strip())
             for mark, end in zip(marks, ends, strict=False)]
    before = text[: marks[0].start()] if marks else text
    return [Page(None, before.strip()), *pages] if before.strip() else pages


def paragraphs_of(text: str, length: int) -> list[str]:
    """A text in pieces of whole paragraphs, each of about `length` characters.

    A paragraph that is much longer is divided after lines, a line after words.
    """
    pieces: list[str] = []
    for paragraph in re.split(r"\n[^\S\n]*\n\s*", text.strip()):
        for part in _divided(paragraph, 2 * length):
            if pieces and len(pieces[-1]) + len(part) <= length:
                pieces[-1] += "\n\n" + part
            else:
                pieces.append(part)
    return pieces


def _divided(paragraph: str, most: int) -> list[str]:
    parts = []
    start = 0
    while len(paragraph) - start > most:
        middle, end = start + most // 2, start + most
        at = max(paragraph.rfind("\n", middle, end), paragraph.rfind(". ", middle, end) + 1)
        if at < middle:
            at = paragraph.rfind(" ", middle, end)
        at = end if at < middle else at
        parts.append(paragraph[start:at].strip())
        start = at
    return [*parts, paragraph[start:].strip()]
