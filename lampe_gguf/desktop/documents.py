"""The documents panel: what is there, what it holds, and how long it takes to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from lampe_gguf import Counted, Document

from .labels import paragraph
from .rows import Row, RowList
from .words import duration, file_name, joined, percent, some

EMPTY = ("Drop documents anywhere on this window, or press Ctrl+D: text, Markdown, PDF, Word, "
         "OpenDocument, EPUB, HTML, and folders of these.")

Seconds = Callable[[int], float | None]


def held(document: Document, tokens: int | None) -> str:
    """What a document holds."""
    pages = "" if document.pages is None else some(document.pages, "page")
    amount = some(len(document.text), "character") if tokens is None else some(tokens, "token")
    return joined([pages, amount])


def costs(tokens: int | None, share: float | None, seconds: Seconds) -> str:
    """What it takes of the context, and of time, as far as that is known."""
    took = "" if share is None else f"{percent(share)} of the context"
    needed = None if tokens is None else seconds(tokens)
    return joined([took, "" if needed is None else f"{duration(needed)} to read"])


class Documents(QWidget):
    """Those that wait for the next question, and those that were read for an earlier one."""

    wanted = Signal()
    unwanted = Signal(object)  # a Document that waits

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        heading = QLabel("&Documents")
        heading.setObjectName("heading")
        self.list = RowList("Documents of this conversation")
        heading.setBuddy(self.list)
        self.list.selectionModel().currentChanged.connect(lambda *_: self._allow())
        self.add = QPushButton("Add…")
        self.add.setAccessibleName("Add documents")
        self.add.setToolTip("Add documents (Ctrl+D)")
        self.add.clicked.connect(self.wanted)
        self.take_out = QPushButton("Remove")
        self.take_out.setAccessibleName("Remove the chosen document")
        self.take_out.setToolTip("Remove a document that was not read yet (Delete)")
        self.take_out.clicked.connect(self._remove)
        self.total = paragraph(EMPTY, "hint")
        top = QHBoxLayout()
        top.addWidget(heading, 1)
        top.addWidget(self.add)
        top.addWidget(self.take_out)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(top)
        layout.addWidget(self.total)
        layout.addWidget(self.list, 1)
        self._pending: set[int] = set()
        self._allow()

    def show_documents(
        self, pending: Sequence[Counted], read: Sequence[tuple[Document, int | None]],
        is_reading: bool, seconds: Seconds,
    ) -> None:
        """`read`: documents of earlier lines, with their tokens where they are known.

        seconds  how long so many tokens take to read, None where that is not known yet
        """
        state = "being read" if is_reading else "for the next question"
        rows = [Row(each.document, file_name(each.document.name),
                    (held(each.document, each.tokens),
                     costs(each.tokens, each.share, seconds), state,
                     *each.document.left_out), mark="accent")
                for each in pending]
        rows += [Row(document, file_name(document.name), (held(document, tokens), "read",
                                                            *document.left_out))
                 for document, tokens in read]
        self._pending = set() if is_reading else {id(each.document) for each in pending}
        self.list.show_rows(rows)
        self.total.setText(self._sum(pending, seconds) if pending else "" if rows else EMPTY)
        self.total.setVisible(bool(self.total.text()))
        self._allow()

    @staticmethod
    def _sum(pending: Sequence[Counted], seconds: Seconds) -> str:
        counts = [each.tokens for each in pending if each.tokens is not None]
        if len(counts) < len(pending):
            return f"{some(len(pending), 'document')} to be read; the model will say how long"
        shares = [each.share for each in pending if each.share is not None]
        share = sum(shares) if len(shares) == len(pending) else None
        return joined([f"To be read: {some(sum(counts), 'token')}",
                       costs(sum(counts), share, seconds)])

    def _chosen(self) -> Document | None:
        document = self.list.current()
        return document if document is not None and id(document) in self._pending else None

    def _allow(self) -> None:
        self.take_out.setEnabled(self._chosen() is not None)

    def _remove(self) -> None:
        document = self._chosen()
        if document is not None:
            self.unwanted.emit(document)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Delete:
            self._remove()
        else:
            super().keyPressEvent(event)
