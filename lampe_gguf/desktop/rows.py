"""A list whose rows have a title and lines of detail, each shortened to what fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import (
    QAbstractListModel,
    QModelIndex,
    QPersistentModelIndex,
    QRect,
    QSize,
    Qt,
)
from PySide6.QtGui import QFont, QFontMetrics, QPainter, QPalette
from PySide6.QtWidgets import (
    QAbstractItemView,
    QListView,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QWidget,
)

PADDING = 7  # pixels around the text of a row
BAR = 4  # width of a row's mark
Index = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True)
class Row:
    """key: what the row stands for; mark: a colour's name, of the theme's or "" for none."""

    key: Any
    title: str
    details: tuple[str, ...] = ()
    mark: str = ""

    @property
    def shown(self) -> list[str]:
        """The details that say something, a line each."""
        return [each for each in self.details if each]

    @property
    def said(self) -> str:
        """All of it, for those who hear it."""
        return ", ".join([self.title, *self.shown])


class _Rows(QAbstractListModel):
    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.rows: list[Row] = []

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008  (Qt's signature)
        return 0 if parent.isValid() else len(self.rows)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not 0 <= index.row() < len(self.rows):
            return None
        row = self.rows[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return row.title
        if role in (Qt.ItemDataRole.AccessibleTextRole, Qt.ItemDataRole.ToolTipRole):
            return row.said
        return row if role == Qt.ItemDataRole.UserRole else None


class _Painter(QStyledItemDelegate):
    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        row = index.data(Qt.ItemDataRole.UserRole)
        bold = QFontMetrics(_bold(option.font)).height()
        plain = option.fontMetrics.height()
        return QSize(80, bold + plain * (len(row.shown) if row else 0) + 2 * PADDING)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        row = index.data(Qt.ItemDataRole.UserRole)
        view = self.parent()
        if row is None or not isinstance(view, RowList):
            return
        bare = QStyleOptionViewItem(option)
        self.initStyleOption(bare, index)
        bare.text = ""
        style = view.style()
        style.drawControl(style.ControlElement.CE_ItemViewItem, bare, painter, view)
        state = option.state
        is_chosen = bool(state & style.StateFlag.State_Selected)
        palette = option.palette
        role = QPalette.ColorRole
        ink = palette.color(role.HighlightedText if is_chosen else role.Text)
        quiet = ink if is_chosen else palette.color(role.PlaceholderText)
        painter.save()
        whole: QRect = option.rect
        if row.mark and row.mark in view.colours:
            painter.fillRect(whole.left(), whole.top() + PADDING, BAR,
                             whole.height() - 2 * PADDING, view.colours[row.mark])
        left = whole.left() + BAR + PADDING
        place = QRect(left, whole.top() + PADDING, whole.right() - PADDING - left, 0)
        font = option.font
        for number, text in enumerate([row.title, *row.shown]):
            painter.setFont(font if number else _bold(font))
            painter.setPen(quiet if number else ink)
            metrics = painter.fontMetrics()
            place.setHeight(metrics.height())
            painter.drawText(place, Qt.AlignmentFlag.AlignVCenter, metrics.elidedText(
                text, Qt.TextElideMode.ElideMiddle if not number else
                Qt.TextElideMode.ElideRight, place.width()))
            place.translate(0, metrics.height())
        painter.restore()


def _bold(font: QFont) -> QFont:
    made = QFont(font)
    made.setWeight(QFont.Weight.DemiBold)
    return made


class RowList(QListView):
    """Shows rows; which of them is the current one stays so when the rows are given anew.

    is_uniform  all have as many details: thousands of them cost no more than those that are seen
    """

    def __init__(self, name: str, parent: QWidget | None = None, *, is_uniform: bool = False
                 ) -> None:
        super().__init__(parent)
        self.colours: dict[str, Any] = {}
        self._rows = _Rows(self)
        self.setModel(self._rows)
        self.setItemDelegate(_Painter(self))
        self.setAccessibleName(name)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setUniformItemSizes(is_uniform)

    @property
    def rows(self) -> list[Row]:
        """What is shown."""
        return self._rows.rows

    def show_rows(self, rows: Sequence[Row]) -> None:
        """Show these."""
        if list(rows) == self._rows.rows:
            return
        key = self.current()
        self._rows.beginResetModel()
        self._rows.rows = list(rows)
        self._rows.endResetModel()
        self.choose(key)

    def current(self) -> Any:
        """The key of the row that is chosen, None for none."""
        row = self.currentIndex().data(Qt.ItemDataRole.UserRole)
        return row.key if row is not None else None

    def choose(self, key: Any) -> None:
        """Choose the row of a key; none where there is no such row."""
        for number, row in enumerate(self._rows.rows):
            if row.key == key and key is not None:
                self.setCurrentIndex(self._rows.index(number))
                return
        self.setCurrentIndex(QModelIndex())
