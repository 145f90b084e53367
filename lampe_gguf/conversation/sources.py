"""Where the words of an answer stand in the documents: found by comparing, not by the model.

This says that a page has the same words in a row, and no more: not that the answer is right, nor
that the model took it from there. An answer in words of its own has no source here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .documents import Document
from .places import pages_of

RUN = 5  # words in a row: fewer are found on any page
TELLING = 3  # of these, at least so many that are long, or numbers
LONG = 5  # characters of a word that is more than a link between others
MOST_PLACES = 2  # what stands on more pages is a heading or a phrase, and points to none of them
MOST = 3  # sources for an answer

WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
Run = tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Words of the answer that stand in a document, on a page where it has pages."""

    document: str
    page: int | None
    words: str

    def said(self) -> str:
        """Where to look, and for which words."""
        page = "" if self.page is None else f", page {self.page:,}"
        return f'see {self.document}{page}: "{self.words}"'


def find_sources(answer: str, documents: Sequence[Document], question: str = "") -> list[Source]:
    """Pages that have words of the answer in the same order, those with most of them first.

    question  whose words in a row prove nothing: an answer often repeats them

    At least five words in a row, three of them long ones or numbers, and not on more than two
    pages: an answer without such has none.

    >>> from lampe_gguf.conversation.documents import Document
    >>> letter = Document("letter.pdf", "[page 1]\\nDear Sir,\\n\\n[page 2]\\nThe boat to Bergen "
    ...                   "sails on Monday at nine.")
    >>> for each in find_sources("It says that the boat to Bergen sails on Monday.", [letter]):
    ...     print(each.said())
    see letter.pdf, page 2: "The boat to Bergen sails on Monday"
    """
    spoken = [match[0] for match in WORD.finditer(answer)]
    words = [each.lower() for each in spoken]
    starts: dict[Run, list[int]] = {}
    asked = _runs([each[0].lower() for each in WORD.finditer(question)])
    for at, run in enumerate(_runs(words)):
        if run not in asked:
            starts.setdefault(run, []).append(at)
    found: dict[tuple[int, int], list[tuple[int, int, int | None]]] = {}
    for number, document in enumerate(documents):
        for page in pages_of(document.text):
            there = [match[0].lower() for match in WORD.finditer(page.text)]
            for begin, end in _shared(words, there, starts):
                found.setdefault((begin, end), []).append((number, end - begin, page.number))
    sources: list[Source] = []
    taken: set[int] = set()
    for begin, end in sorted(found, key=lambda run: (run[0] - run[1], run[0])):
        places = found[begin, end]
        telling = sum(len(each) >= LONG or each.isdigit() for each in set(words[begin:end]))
        if len(places) > MOST_PLACES or telling < TELLING or taken & set(range(begin, end)):
            continue
        taken |= set(range(begin, end))
        sources += [Source(documents[number].name, page, " ".join(spoken[begin:end]))
                    for number, _, page in places]
    return sources[:MOST]


def _runs(words: list[str]) -> list[Run]:
    return [tuple(words[at : at + RUN]) for at in range(len(words) - RUN + 1)]


def _shared(
    words: list[str], there: list[str], starts: dict[Run, list[int]]
) -> set[tuple[int, int]]:
    """The longest runs of the answer's words on a page, as (begin, end) in the answer."""
    shared = set()
    for at, run in enumerate(_runs(there)):
        for begin in starts.get(run, ()):
            if begin and at and words[begin - 1] == there[at - 1] and (
                    tuple(words[begin - 1 : begin - 1 + RUN]) in starts):
                continue  # the middle of a run that began before
            length = RUN
            while (begin + length < len(words) and at + length < len(there)
                   and words[begin + length] == there[at + length]):
                length += 1
            shared.add((begin, begin + length))
    return shared
