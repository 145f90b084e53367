"""Where the parts of the window stand: lists left and right, the conversation between them."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QSplitter, QVBoxLayout, QWidget

WIDTHS = [230, 600, 290]
MIDDLE = 320  # pixels that the conversation has at least; lists have what their buttons take


def lay_out(
    top: QWidget, left: QWidget, middle: QWidget, below: Sequence[QWidget], right: QWidget
) -> QWidget:
    """`below` the middle stand parts that take the height they need, and it takes the rest."""
    centre = QWidget()
    column = QVBoxLayout(centre)
    column.setContentsMargins(0, 0, 0, 0)
    column.addWidget(middle, 1)
    for each in below:
        column.addWidget(each)
    centre.setMinimumWidth(MIDDLE)
    splitter = QSplitter(Qt.Orientation.Horizontal)
    splitter.setHandleWidth(10)
    splitter.setChildrenCollapsible(False)
    for part in (left, centre, right):
        splitter.addWidget(part)
        splitter.setStretchFactor(splitter.count() - 1, int(part is centre))
    splitter.setSizes(WIDTHS)
    whole = QWidget()
    rows = QVBoxLayout(whole)
    rows.setContentsMargins(12, 8, 12, 12)
    rows.addWidget(top)
    rows.addWidget(splitter, 1)
    return whole
