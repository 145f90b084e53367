"""The list of conversations: those that are open here, and those that are kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QModelIndex, Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from lampe_gguf import ChatEntry

from .labels import paragraph
from .rows import Row, RowList
from .talk import Talk
from .words import file_name, joined, moment, one_line, some

NEW = "New conversation"
EMPTY = "What you ask is kept here, and can be gone on with."


def title_of(line: str, documents: Sequence[str]) -> str:
    """What a conversation is called: by what was said first, else by its documents."""
    return one_line(line) or ", ".join(map(file_name, documents)) or NEW


class ChatList(QWidget):
    """`chosen` and `unwanted` carry a Talk that is open, or the id of one that is kept."""

    chosen = Signal(object)
    unwanted = Signal(object)
    wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        heading = QLabel("&Conversations")
        heading.setObjectName("heading")
        self.list = RowList("Conversations", is_uniform=True)
        heading.setBuddy(self.list)
        self.list.clicked.connect(self._choose)
        self.list.activated.connect(self._choose)
        self.new = QPushButton("New")
        self.new.setAccessibleName("New conversation")
        self.new.setToolTip("New conversation (Ctrl+N)")
        self.new.clicked.connect(self.wanted)
        top = QHBoxLayout()
        top.addWidget(heading, 1)
        top.addWidget(self.new)
        self._state: tuple[Any, ...] = ()
        self._kept: Sequence[ChatEntry] = ()  # held, so that no other list is taken for it
        self.hint = paragraph(EMPTY, "hint")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(top)
        layout.addWidget(self.hint)
        layout.addWidget(self.list, 1)

    def show_chats(self, talks: Sequence[Talk], kept: Sequence[ChatEntry], current: Talk | None
                   ) -> None:
        """Those open first where nothing is kept of them yet, then by when something was said."""
        state = (id(kept), current, *(
            (talk, talk.dialogue.id, talk.dialogue.title, talk.is_asking, talk.dialogue.pending)
            for talk in talks))
        if state == self._state:  # there may be thousands
            return
        self._state, self._kept = state, kept
        by_id = {talk.dialogue.id: talk for talk in talks if talk.dialogue.id}
        known = {entry.id for entry in kept}
        rows = [self._open(talk) for talk in talks if talk.dialogue.id not in known]
        for entry in kept:
            talk = by_id.get(entry.id)
            rows.append(Row(
                talk if talk is not None else entry.id,
                title_of(entry.first_line, entry.documents),
                (entry.damage or joined([
                    moment(entry.last), some(entry.turns, "answer"),
                    _going_on(talk)]),),
                mark="accent" if talk is not None and talk is current else "",
            ))
        self.list.show_rows(rows)
        self.list.choose(current)
        self.hint.setVisible(not kept)

    @staticmethod
    def _open(talk: Talk) -> Row:
        names = [each.document.name for each in talk.dialogue.pending]
        return Row(talk, title_of(talk.dialogue.title, names),
                   (_going_on(talk) or "not yet kept",))

    def _choose(self, index: QModelIndex) -> None:
        row = index.data(Qt.ItemDataRole.UserRole)
        if row is not None:
            self.chosen.emit(row.key)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key: Any = self.list.current()
        if event.key() == Qt.Key.Key_Delete and key is not None:
            self.unwanted.emit(key)
        else:
            super().keyPressEvent(event)


def _going_on(talk: Talk | None) -> str:
    return "answering" if talk is not None and talk.is_asking else ""
