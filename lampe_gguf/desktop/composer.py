"""Where the next line is written and sent."""

from __future__ import annotations

from PySide6.QtCore import QMimeData, QSize, Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QHBoxLayout, QPlainTextEdit, QPushButton, QWidget

LONG = 10_000  # characters of a pasted text that is a document and no line
WIDTH = 76  # of the button, pixels: as Stop is
MOST_LINES = 6  # that are seen at a time
ENTER = (Qt.Key.Key_Return, Qt.Key.Key_Enter)


class Line(QPlainTextEdit):
    """Text of a few lines: Enter sends, Shift+Enter begins a line, Up calls back the last one."""

    entered = Signal()
    recalled = Signal()
    pasted = Signal(str)  # more than a line
    dropped = Signal(list)  # paths of files

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Question")
        self.setTabChangesFocus(True)
        self.setPlaceholderText("Ask about the documents, or say anything")
        self.textChanged.connect(self.updateGeometry)

    def sizeHint(self) -> QSize:
        lines = max(1, min(MOST_LINES, round(self.document().size().height())))
        extra = 2 * (self.document().documentMargin() + self.frameWidth()) + 14
        return QSize(200, int(lines * self.fontMetrics().lineSpacing() + extra))

    def minimumSizeHint(self) -> QSize:
        return QSize(80, self.sizeHint().height())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        is_shifted = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        if event.key() in ENTER and not is_shifted:
            self.entered.emit()
        elif event.key() == Qt.Key.Key_Up and not self.toPlainText():
            self.recalled.emit()
        else:
            super().keyPressEvent(event)

    def canInsertFromMimeData(self, source: QMimeData) -> bool:
        return source.hasUrls() or super().canInsertFromMimeData(source)

    def insertFromMimeData(self, source: QMimeData) -> None:
        paths = [each.toLocalFile() for each in source.urls() if each.isLocalFile()]
        if paths:
            self.dropped.emit(paths)
        elif len(source.text()) > LONG:
            self.pasted.emit(source.text())
        else:
            self.insertPlainText(source.text())


class Composer(QWidget):
    """The line and its button; `sent` carries what was written, which is taken away only then."""

    sent = Signal(str)
    refused = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.line = Line()
        self.send = QPushButton("Ask")
        self.send.setObjectName("send")
        self.send.setMinimumWidth(WIDTH)
        self.send.setAccessibleName("Ask")
        self.send.setToolTip("Ask (Enter or Ctrl+Enter)")
        self.send.clicked.connect(self.enter)
        self.line.entered.connect(self.enter)
        self.line.textChanged.connect(self._allow)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.line, 1)
        layout.addWidget(self.send, 0, Qt.AlignmentFlag.AlignBottom)
        self._why_not = ""
        self._allow()

    def allow(self, why_not: str) -> None:
        """Whether a line can be sent now: "" for yes, else a sentence for the tool tip."""
        self._why_not = why_not
        self._allow()

    def _allow(self) -> None:
        self.send.setEnabled(not self._why_not and bool(self.line.toPlainText().strip()))
        self.send.setToolTip(self._why_not or "Ask (Enter or Ctrl+Enter)")

    def enter(self) -> None:
        """Send what is written; where that cannot be done now, `refused` says why."""
        if self._why_not and self.line.toPlainText().strip():
            self.refused.emit(self._why_not)
        elif self.send.isEnabled():
            text = self.line.toPlainText().strip()
            self.line.clear()
            self.sent.emit(text)

    def put(self, text: str) -> None:
        """Have this written, to be changed and sent."""
        self.line.setPlainText(text)
        cursor = self.line.textCursor()
        cursor.movePosition(cursor.MoveOperation.End)
        self.line.setTextCursor(cursor)
        self.line.setFocus()
