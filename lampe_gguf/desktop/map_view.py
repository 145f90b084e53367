"""The map, drawn: tokens above, the positions that the model sees below, a colour for each grain.

Both are to one scale, and the newest token is where they meet: what narrows between them is what
LaMPE compresses.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetrics, QHelpEvent, QPainter, QPaintEvent, QPolygonF
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from lampe_gguf import LampeConfig

from .grains import LOCAL, MIDDLE, TAIL, TALK, Grain, Part, grains, parts, sentences
from .theme import LIGHT_THEME, Theme
from .words import file_name, some

SIDE = 12  # pixels left and right of the bars
TOP = 10  # above and below all
BAR, GAP = 16, 24  # height of a bar, and between the two
FAINT = 70  # of 255: how much of the colour is between the bars
EMPTY = "The map of positions appears here once a model is open and something is read."


class MapView(QWidget):
    """Shows one context: what of it is read, and where the plan puts that."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Map of positions")
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._theme = LIGHT_THEME
        self._config: LampeConfig | None = None
        self._stretches: tuple[tuple[str, int], ...] = ()
        self._length = self._full = 0
        self.grains: list[Grain] = []
        self.parts: list[Part] = []
        self._tell()

    def set_theme(self, theme: Theme) -> None:
        """Draw it in these colours."""
        self._theme = theme
        self.update()

    def show_context(
        self, config: LampeConfig | None, stretches: Sequence[tuple[str, int]], length: int,
        full: int,
    ) -> None:
        """`length` tokens are read, `full` will be; what lies where: `stretches`, labels and
        tokens in order."""
        now = (config, tuple(stretches), length, max(full, length))
        if now == (self._config, self._stretches, self._length, self._full):
            return
        self._config, self._stretches, self._length, self._full = now
        self.grains = grains(config, length)
        self.parts = parts(self._stretches, self.grains)
        self._tell()
        self.update()

    def sentences(self) -> list[str]:
        """The map in words."""
        return sentences(self.parts, self.grains) if self.grains else [EMPTY]

    def _tell(self) -> None:
        self.setAccessibleDescription(" ".join(self.sentences()))

    def sizeHint(self) -> QSize:
        return QSize(300, 2 * BAR + GAP + 3 * self.fontMetrics().height() + 2 * TOP + 6)

    def minimumSizeHint(self) -> QSize:
        return QSize(160, self.sizeHint().height())

    def _x(self, position: float) -> float:
        return SIDE + (self.width() - 2 * SIDE) * position / max(1, self._full)

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            x = event.pos().x()
            here = [f"{_name(part.label)}: {part.grain}" for part in self.parts
                    if self._x(part.begin) <= x <= self._x(part.end)]
            QToolTip.showText(event.globalPos(), "\n".join([*here[:1], *self.sentences()]), self)
            return True
        return super().event(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        metrics = painter.fontMetrics()
        painter.setPen(self._theme.colour("accent" if self.hasFocus() else "line"))
        painter.setBrush(self._theme.colour("base"))
        painter.drawRoundedRect(self.rect().adjusted(0, 0, -1, -1), 8, 8)
        if not self.grains:
            painter.setPen(self._theme.colour("faint"))
            painter.drawText(self.rect().adjusted(SIDE, 0, -SIDE, 0),
                             Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap, EMPTY)
            return
        top = metrics.height() + TOP
        self._draw_names(painter, metrics)
        self._draw_between(painter, top + BAR, top + BAR + GAP)
        self._draw_tokens(painter, top)
        self._draw_positions(painter, top + BAR + GAP)
        self._draw_legend(painter, metrics, top + 2 * BAR + GAP + 4)

    def _draw_names(self, painter: QPainter, metrics: QFontMetrics) -> None:
        painter.setPen(self._theme.colour("text"))
        begin = 0
        for label, tokens in [*self._stretches, ("", self._full)]:
            end = min(self._full, begin + tokens)
            room = self._x(end) - self._x(begin) - 6
            name = _name(label)
            if room > metrics.horizontalAdvance("nn…"):
                painter.drawText(
                    QRectF(self._x(begin) + 3, TOP - 3, room, metrics.height()),
                    metrics.elidedText(name, Qt.TextElideMode.ElideMiddle, int(room)))
            begin = max(begin, end)

    def _draw_tokens(self, painter: QPainter, top: float) -> None:
        whole = QRectF(self._x(0), top, self._x(self._full) - self._x(0), BAR)
        painter.fillRect(whole, self._theme.colour("line"))
        for part in self.parts:
            self._bar(painter, part.grain, self._x(part.begin), self._x(part.end), top)
        painter.setPen(self._theme.colour("base"))
        begin = 0
        for _, tokens in self._stretches:
            begin += tokens
            if 0 < begin < self._full:
                painter.drawLine(QPointF(self._x(begin), top), QPointF(self._x(begin), top + BAR))

    def _draw_positions(self, painter: QPainter, top: float) -> None:
        for grain in self.grains:
            self._bar(painter, grain.name, self._seen(grain.farthest + 1),
                      self._seen(grain.nearest), top)

    def _draw_between(self, painter: QPainter, above: float, below: float) -> None:
        painter.setPen(Qt.PenStyle.NoPen)
        for grain in self.grains:
            colour = QColor(self._theme.colour(grain.name))
            colour.setAlpha(FAINT)
            painter.setBrush(colour)
            painter.drawPolygon(QPolygonF([
                QPointF(self._x(grain.begin), above), QPointF(self._x(grain.end), above),
                QPointF(self._seen(grain.nearest), below),
                QPointF(self._seen(grain.farthest + 1), below)]))

    def _seen(self, away: int) -> float:
        """Where a position lies that seems to be so far from the newest token."""
        return self._x(self._length - away)

    def _bar(self, painter: QPainter, name: str, left: float, right: float, top: float) -> None:
        # a grain of a few tokens among many is a pixel at least
        painter.fillRect(QRectF(left, top, max(1.0, right - left), BAR), self._theme.colour(name))

    def _draw_legend(self, painter: QPainter, metrics: QFontMetrics, top: float) -> None:
        x = float(SIDE)
        for name, what in ((LOCAL, "local: exact"), (MIDDLE, "middle: compressed"),
                           (TAIL, "tail: exact, shifted")):
            width = metrics.horizontalAdvance(what)
            if x + width + 18 > self.width() - SIDE:
                break
            painter.fillRect(QRectF(x, top + metrics.height() / 2 - 4, 9, 9),
                             self._theme.colour(name))
            painter.setPen(self._theme.colour("text"))
            painter.drawText(QRectF(x + 14, top, width + 2, metrics.height()), what)
            x += width + 30
        painter.setPen(self._theme.colour("faint"))
        room = QRectF(SIDE, top + metrics.height() + 1, self.width() - 2 * SIDE, metrics.height())
        painter.drawText(room, metrics.elidedText(
            self._sum(), Qt.TextElideMode.ElideRight, int(room.width())))

    def _sum(self) -> str:
        n_positions = max(grain.farthest for grain in self.grains) + 1
        said = f"{some(self._length, 'token')} in {some(n_positions, 'position')}"
        if self._config is not None:
            said += f"; the model was trained on {self._config.window:,}"
        return said


def _name(label: str) -> str:
    return file_name(label) if label else TALK
