"""A sentence to people, above what they write: what went wrong or was left out, and the way out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtGui import QAccessible, QAccessibleAnnouncementEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from .labels import breakable, paragraph
from .words import shortened

Way = tuple[str, Callable[[], None]]  # what a button says, and what it does
# characters that are shown, for which the smallest window has room; the tool tip has all of them
MOST = 400
INFO, ERROR = "info", "error"


class Notice(QFrame):
    """Shows one notice at a time, until somebody closes it or the next one comes."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("notice")
        self.setAccessibleName("Notice")
        self.label = paragraph()
        self.close_button = QPushButton("Close")
        self.close_button.setAccessibleName("Close the notice")
        self.close_button.clicked.connect(self.clear)
        self.ways: list[QPushButton] = []
        self._buttons = QHBoxLayout()
        self._buttons.addStretch(1)
        self._buttons.addWidget(self.close_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 8, 8, 8)
        layout.addWidget(self.label)
        layout.addLayout(self._buttons)
        self.kind = INFO
        self.hide()

    def say(self, text: str, kind: str = INFO, ways: Sequence[Way] = ()) -> None:
        """Show a sentence, with a button for each way out; and have it read aloud."""
        self.clear()
        self.kind = kind
        self.setProperty("kind", kind)
        self.label.setText(breakable(shortened(text, MOST)))
        self.label.setToolTip(text)
        self.label.setAccessibleName(text)
        for name, act in ways:
            button = QPushButton(name)
            button.setAccessibleName(name)
            button.clicked.connect(self._taking(act))
            self._buttons.insertWidget(self._buttons.count() - 1, button)
            self.ways.append(button)
        self.style().unpolish(self)
        self.style().polish(self)
        self.show()
        QAccessible.updateAccessibility(QAccessibleAnnouncementEvent(self, text))

    @property
    def text(self) -> str:
        """What is said now, "" for nothing."""
        return "" if self.isHidden() else self.label.accessibleName()

    def clear(self) -> None:
        """Say nothing."""
        self.hide()
        for button in self.ways:
            self._buttons.removeWidget(button)
            button.deleteLater()
        self.ways = []

    def _taking(self, act: Callable[[], None]) -> Callable[[], None]:
        def take() -> None:
            self.clear()
            act()

        return take
