"""Cut documents to what a context holds, and say what is left of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..backend.vocabulary import vocabulary
from ..container.format import padded
from ..errors import LampeError, UsageError
from ..method.fields import MAX_LENGTH
from ..model.choose import read_file
from .documents import Document, as_message
from .length import OnProgress, count_tokens
from .places import has_pages, pages_of, paragraphs_of
from .prompt import chat_tokens
from .session import longest_input

WAYS = ("newest", "spread")
SAME = 256  # tokens that the question and the answer take are rounded up to a multiple of this
PIECE = 2000  # characters of a piece of text without pages, where there is room for many
MARK = "[... {} {} left out here ...]"  # where something is missing


@dataclass(frozen=True)
class Piece:
    """A page or some paragraphs, with the tokens that they take."""

    text: str
    tokens: int


def fit_documents(
    path: str | os.PathLike[str], documents: Sequence[Document], question: str, way: str, *,
    use_lampe: bool = True, n_answer: int = 0, n_ctx: int | None = None,
    on_progress: OnProgress | None = None, on_note: Callable[[str], None] = lambda text: None,
) -> list[Document]:
    """The documents, those that are too long cut so that all fit with question and answer.

    way      "newest" keeps the end of each, "spread" pieces from everywhere, evenly spaced; both
             keep whole pages, or paragraphs where there are no pages, and short documents whole
    n_ctx    tokens to fit into; None: as many as the model supports
    on_note  called with a sentence about each document that was cut: what was kept

    A mark stands where something is missing. Raises UsageError for another way, LampeError where
    there is no room for a piece of each. on_progress as in `tokens_to_ask`.
    """
    if way not in WAYS:
        raise UsageError(f'there is no way to cut called "{way}"; there are newest and spread')
    path = read_file(path)
    limit, window = longest_input(path, use_lampe)
    most = n_ctx or limit or window or MAX_LENGTH
    with vocabulary(path) as vocab:
        def needed(cut: Sequence[Document]) -> int:
            message = {"role": "user", "content": as_message(list(cut), question)}
            return len(chat_tokens(vocab, [message])) + n_answer

        empty = [replace(each, text="") for each in documents]
        room = most - needed(empty)
        if not documents:
            return []
        if room < 1:
            raise LampeError(
                f"without the documents, the question and the answer need {most - room:,} tokens "
                f"already and the context holds {most:,}; ask in fewer words, or for a shorter "
                "answer")
        # questions of about the same length get the same text: what was read of it need not be
        # read again
        room = max(room // 2, most - padded(most - room, SAME))
        mark = count_tokens(vocab, MARK.format("100,000", "characters")) + 2
        pieces = _pieces(vocab, documents, room, on_progress)
        # the whole is not tokenised at once where it is far too long
        if sum(each.tokens for found in pieces for each in found) <= 2 * room:
            if needed(documents) <= most:
                return list(documents)
        step = 1  # pieces may take fewer tokens than the whole, too
        while (over := needed(cut := _cut(documents, pieces, room, way, mark)) - most) > 0:
            room -= max(over, step)
            step *= 2
    for document in cut:
        if document.left_out and document not in documents:
            on_note(f"{document.name}: {document.left_out[-1]}")
    return cut


def _pieces(
    vocab: Any, documents: Sequence[Document], room: int, on_progress: OnProgress | None
) -> list[list[Piece]]:
    total = sum(len(each.text) for each in documents)
    # a piece of each document must fit, and more than one where evenly spaced ones are wanted
    length = min(PIECE, max(100, room * 3 // (8 * max(1, len(documents)))))
    done = 0
    found = []
    for document in documents:
        texts = ([page.text for page in pages_of(document.text)] if has_pages(document.text)
                 else paragraphs_of(document.text, length))
        pieces = []
        for text in texts:
            pieces.append(Piece(text, count_tokens(vocab, text) + 2))
            done += len(text)
            if on_progress is not None:
                on_progress(min(done, total), total)
        found.append(pieces)
    return found


def _cut(
    documents: Sequence[Document], pieces: list[list[Piece]], room: int, way: str, mark: int
) -> list[Document]:
    """Each document within its share of the room; what short ones leave is the others'."""
    cut = list(documents)
    sizes = [sum(each.tokens for each in found) for found in pieces]
    order = sorted(range(len(documents)), key=lambda number: sizes[number])
    for place, number in enumerate(order):
        share = room // (len(order) - place)
        if sizes[number] > share:
            kept = (_newest if way == "newest" else _spread)(pieces[number], share, mark)
            cut[number] = _joined(documents[number], pieces[number], kept)
            room -= share
        else:
            room -= sizes[number]
    return cut


def _newest(pieces: list[Piece], room: int, mark: int) -> list[int]:
    first, left = len(pieces), room - mark
    while first and pieces[first - 1].tokens <= left:
        first -= 1
        left -= pieces[first].tokens
    return list(range(first, len(pieces)))


def _spread(pieces: list[Piece], room: int, mark: int) -> list[int]:
    """As many evenly spaced pieces as fit, the first and the last among them."""
    def spaced(count: int) -> list[int]:
        if count < 2:
            return [len(pieces) // 2] * count
        return [round(at * (len(pieces) - 1) / (count - 1)) for at in range(count)]

    def fits(count: int) -> bool:
        kept = spaced(count)
        gaps = 1 + sum(after - before > 1 for before, after in zip(kept, kept[1:], strict=False))
        return sum(pieces[each].tokens for each in kept) + mark * gaps <= room

    low, high = 0, len(pieces)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return spaced(low)


def _joined(document: Document, pieces: list[Piece], kept: list[int]) -> Document:
    """The document of these pieces, with a mark wherever others are missing."""
    has_numbers = has_pages(document.text)
    unit = "pages" if has_numbers else "characters"

    def amount(found: Sequence[Piece]) -> int:
        return len(found) if has_numbers else sum(len(each.text) for each in found)

    if not kept:
        raise LampeError(
            f"there is no room for {'a page' if has_numbers else 'a paragraph'} of "
            f"{document.name}; give fewer documents, or a larger context")
    parts: list[str] = []
    after = 0
    for each in [*kept, len(pieces)]:
        if missing := amount(pieces[after:each]):
            parts.append(MARK.format(f"{missing:,}", unit))
        parts += [piece.text for piece in pieces[each : each + 1]]
        after = each + 1
    said = f"kept {amount([pieces[each] for each in kept]):,} of {amount(pieces):,} {unit}"
    # without a path: it is no longer the text of the file
    return replace(document, text="\n\n".join(parts), path="",
                   left_out=(*document.left_out, said))
