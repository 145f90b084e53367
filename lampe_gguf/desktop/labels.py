"""Labels that never show cut text: one line with an ellipsis, or as many lines as it takes."""

from __future__ import annotations

import re

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPalette
from PySide6.QtWidgets import QLabel, QSizePolicy, QWidget

BREAK = "\u200b"  # a space of no width
LONG_WORD = re.compile(r"\S{24,}")
PART = re.compile(r"[^/\\._-]{24}|[/\\._-]")


class Elided(QWidget):
    """One line of text; what does not fit is left out in its middle, and is in the tool tip."""

    def __init__(self, parent: QWidget | None = None, *, is_strong: bool = False,
                 is_faint: bool = False) -> None:
        super().__init__(parent)
        self._text = ""
        self._is_faint = is_faint
        if is_strong:
            font = self.font()
            font.setWeight(font.Weight.DemiBold)
            self.setFont(font)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def text(self) -> str:
        """All of it."""
        return self._text

    def setText(self, text: str) -> None:
        """Show this, and say it to those who do not see it."""
        if text == self._text:
            return
        self._text = text
        self.setAccessibleName(text)
        self.setToolTip(text)
        self.update()

    def sizeHint(self) -> QSize:
        metrics = self.fontMetrics()
        return QSize(metrics.horizontalAdvance(self._text) + 2, metrics.height() + 2)

    def minimumSizeHint(self) -> QSize:
        return QSize(60, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        role = QPalette.ColorRole.PlaceholderText if self._is_faint else QPalette.ColorRole.Text
        painter.setPen(self.palette().color(role))
        text = painter.fontMetrics().elidedText(
            self._text, Qt.TextElideMode.ElideMiddle, self.width())
        painter.drawText(self.rect(), Qt.AlignmentFlag.AlignVCenter, text)


def breakable(text: str) -> str:
    """A text whose long words, as paths are, may go on in the next line."""
    return LONG_WORD.sub(lambda word: PART.sub(rf"\g<0>{BREAK}", word[0]), text)


def paragraph(text: str = "", name: str = "", parent: QWidget | None = None) -> QLabel:
    """Text in as many lines as it takes, which can be marked and copied; `name` is of its style."""
    label = QLabel(text, parent)
    label.setObjectName(name)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)  # what it says may be from a file
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label
