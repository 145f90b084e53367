"""What is being done: a sentence, a bar, and the button that stops it."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QGridLayout, QProgressBar, QPushButton, QWidget

from lampe_gguf import Progress

from .composer import WIDTH
from .labels import Elided
from .words import progress

STEPS = 1000  # of a full bar
IDLE = "Nothing is running"


class Activity(QWidget):
    """Always there, so that nothing moves when work begins; `stopped` is the button's."""

    stopped = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.label = Elided(is_faint=True)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setAccessibleName("Progress")
        self.stop = QPushButton("Stop")
        self.stop.setMinimumWidth(WIDTH)
        self.stop.setAccessibleName("Stop")
        self.stop.setToolTip("Stop (Escape)")
        self.stop.clicked.connect(self.stopped)
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(3)
        layout.addWidget(self.label, 0, 0)
        layout.addWidget(self.bar, 1, 0)
        layout.addWidget(self.stop, 0, 1, 2, 1)
        layout.setColumnStretch(0, 1)
        self.idle()

    def idle(self, text: str = "") -> None:
        """Nothing runs; `text` says what there is to say all the same."""
        self._show(text, 0, STEPS)
        self.stop.setEnabled(False)

    def busy(self, text: str) -> None:
        """Something runs, and nobody knows how long."""
        self._show(text, 0, 0)
        self.stop.setEnabled(True)

    def show_progress(self, event: Progress) -> None:
        """How far it is."""
        done = round(STEPS * min(1.0, event.done / event.total)) if event.total else 0
        self._show(progress(event), done, STEPS if event.total else 0)
        self.stop.setEnabled(True)

    def _show(self, text: str, done: int, most: int) -> None:
        self.label.setText(text)
        if self.bar.maximum() != most:
            self.bar.setRange(0, most)
        if most:
            self.bar.setValue(done)
        said = text or IDLE
        if self.bar.accessibleDescription() != said:
            self.bar.setAccessibleDescription(said)
