"""What was said: written piece by piece, so that a token costs what a token costs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QTimer
from PySide6.QtGui import (
    QFont,
    QTextBlockFormat,
    QTextCharFormat,
    QTextCursor,
    QTextFrameFormat,
    QTextLength,
)
from PySide6.QtWidgets import QStackedWidget, QTextEdit, QVBoxLayout, QWidget

from .labels import paragraph
from .theme import LIGHT_THEME, Theme
from .words import joined, shortened

BUDGET = 0.008  # seconds of writing in one go, then the window has its turn
PIECE = 2000  # characters that are written at once
NEAR = 40  # pixels from the end that still count as the end


@dataclass(frozen=True)
class Said:
    """A line of the user's with its answer: "" for none yet; `below` stands under the answer."""

    line: str
    documents: tuple[str, ...] = ()
    answer: str = ""
    below: str = ""


class Transcript(QWidget):
    """A conversation to read, mark and copy; a hint where there is none."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.text = QTextEdit()
        self.text.setReadOnly(True)
        self.text.setUndoRedoEnabled(False)
        self.text.setAccessibleName("Conversation")
        self.text.setTabChangesFocus(True)
        self.text.document().setDocumentMargin(10)
        self.hint = paragraph("", "hint")
        self.hint.setAccessibleName("What to do first")
        self._hint_page = QWidget()
        centre = QVBoxLayout(self._hint_page)
        centre.setContentsMargins(40, 20, 40, 20)
        centre.addStretch(1)
        centre.addWidget(self.hint)
        centre.addStretch(1)
        self.pages = QStackedWidget()
        self.pages.setObjectName("page")
        self.pages.addWidget(self._hint_page)
        self.pages.addWidget(self.text)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.pages)
        self._theme = LIGHT_THEME
        self._turns: list[Said] = []
        self._left: deque[tuple[str, str]] = deque()  # what is to be done, and with which text
        self._cursor = QTextCursor(self.text.document())
        self._format = QTextCharFormat()
        self._timer = QTimer(self)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._write)

    def show_hint(self, text: str) -> None:
        """What to do first, seen while nothing was said."""
        self.hint.setText(text)

    def set_theme(self, theme: Theme) -> None:
        """Write it again in these colours."""
        self._theme = theme
        self.show_turns(self._turns)

    def show_turns(self, turns: Sequence[Said]) -> None:
        """Show a conversation; all of it is written anew, from its beginning, in pieces."""
        self._turns = []
        self._left.clear()
        self.text.clear()
        self._cursor = QTextCursor(self.text.document())
        for turn in turns:
            self.begin(turn)
            if turn.below:
                self.end(turn.below)
        self.pages.setCurrentWidget(self.text if turns else self._hint_page)

    def begin(self, turn: Said) -> None:
        """A line that was said, and what there is of its answer."""
        self._turns.append(turn)
        self.pages.setCurrentWidget(self.text)
        self._left.append(("user", ""))
        self._pieces("text", shortened(turn.line))
        if turn.documents:
            self._left.append(("with", joined([f"with {', '.join(turn.documents)}"])))
        self._left.append(("answer", ""))
        self._pieces("text", turn.answer)
        self._timer.start()

    def append(self, text: str) -> None:
        """More of the last answer."""
        if self._turns:
            last = self._turns[-1]
            self._turns[-1] = Said(last.line, last.documents, last.answer + text, last.below)
        self._pieces("text", text)
        self._timer.start()

    def end(self, below: str) -> None:
        """The last answer is all there; `below` says what of it cost, and where it is from."""
        if self._turns:
            last = self._turns[-1]
            self._turns[-1] = Said(last.line, last.documents, last.answer, below)
        self._left.append(("below", below))
        self._timer.start()

    @property
    def is_written(self) -> bool:
        """Whether all of it is on the screen."""
        return not self._left

    def last_answer(self) -> str:
        """"" where there is none."""
        return next((each.answer for each in reversed(self._turns) if each.answer), "")

    def _pieces(self, kind: str, text: str) -> None:
        self._left.extend((kind, text[at: at + PIECE]) for at in range(0, len(text), PIECE))

    def _write(self) -> None:
        """As much as the budget allows."""
        bar = self.text.verticalScrollBar()
        is_at_end = bar.value() >= bar.maximum() - NEAR
        end = time.perf_counter() + BUDGET
        while self._left and time.perf_counter() < end:
            kind, text = self._left.popleft()
            getattr(self, f"_{kind}")(text)
        if is_at_end:
            bar.setValue(bar.maximum())
        if not self._left:
            self._timer.stop()

    def _characters(self, colour: str, *, is_bold: bool = False, size: float = 1.0
                    ) -> QTextCharFormat:
        made = QTextCharFormat()
        made.setForeground(self._theme.colour(colour))
        if is_bold:
            made.setFontWeight(QFont.Weight.DemiBold)
        if size != 1.0:
            made.setFontPointSize(self.text.font().pointSizeF() * size)
        return made

    def _line(self, text: str, form: QTextCharFormat, *, above: float = 0) -> None:
        """A block of its own: the one that is there, where nothing stands in it yet."""
        self._block(above)
        self._cursor.insertText(text, form)

    def _begin_text(self) -> None:
        """A block for what comes piece by piece."""
        self._block(2)
        self._format = self._characters("text")

    def _block(self, above: float) -> None:
        form = QTextBlockFormat()
        form.setTopMargin(above)
        form.setLineHeight(120, QTextBlockFormat.LineHeightTypes.ProportionalHeight.value)
        if self._cursor.block().length() > 1:
            self._cursor.insertBlock(form)
        else:
            self._cursor.setBlockFormat(form)

    def _user(self, text: str) -> None:
        """Begin the frame of a user's line."""
        self._cursor.movePosition(QTextCursor.MoveOperation.End)
        if not self._cursor.position():  # a document begins with a line of its own
            first = QTextBlockFormat()
            first.setLineHeight(1, QTextBlockFormat.LineHeightTypes.FixedHeight.value)
            self._cursor.setBlockFormat(first)
        frame = QTextFrameFormat()
        frame.setBackground(self._theme.colour("said"))
        frame.setPadding(9)
        frame.setTopMargin(14 if self._cursor.position() else 0)
        frame.setBottomMargin(6)
        frame.setWidth(QTextLength(QTextLength.Type.PercentageLength, 100))
        self._cursor.insertFrame(frame)
        self._line("You", self._characters("accent", is_bold=True, size=0.92))
        self._begin_text()

    def _with(self, text: str) -> None:
        self._line(text, self._characters("faint", size=0.92), above=3)

    def _answer(self, text: str) -> None:
        """Leave the frame, and begin the answer."""
        self._cursor.movePosition(QTextCursor.MoveOperation.End)
        self._line("Answer", self._characters("accent", is_bold=True, size=0.92), above=4)
        self._begin_text()

    def _text(self, text: str) -> None:
        self._cursor.insertText(text, self._format)

    def _below(self, text: str) -> None:
        self._line(text, self._characters("faint", size=0.92), above=6)
