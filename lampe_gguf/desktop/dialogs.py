"""Small windows that ask for a file or a yes, or show a table; none of them waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QGridLayout,
    QLabel,
    QMessageBox,
    QVBoxLayout,
    QWidget,
)

MODEL, FILES, FOLDER, MARKDOWN = "model", "files", "folder", "markdown"
_MODES = {
    MODEL: (QFileDialog.FileMode.ExistingFile, "Models (*.gguf);;All files (*)"),
    FILES: (QFileDialog.FileMode.ExistingFiles, ""),
    FOLDER: (QFileDialog.FileMode.Directory, ""),
    MARKDOWN: (QFileDialog.FileMode.AnyFile, "Markdown (*.md)"),
}


def choose(
    parent: QWidget, title: str, what: str, folder: str, then: Callable[[Any], None],
    seen: Callable[[str], None],
) -> None:
    """Ask for what is named by `what`, beginning in a folder.

    then  called with the path; of FILES and FOLDER with a list of them
    seen  called with each folder that is looked into
    """
    mode, names = _MODES[what]
    dialog = QFileDialog(parent, title, folder, names)
    dialog.setFileMode(mode)
    dialog.directoryEntered.connect(seen)
    if what in (FILES, FOLDER):
        dialog.filesSelected.connect(then)
    else:
        dialog.fileSelected.connect(then)
    if what == MARKDOWN:
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("md")
    _show(dialog)


def confirm(parent: QWidget, question: str, then: Callable[[], None]) -> None:
    """Ask whether something is to be done, and do it."""
    buttons = QMessageBox.StandardButton
    box = QMessageBox(QMessageBox.Icon.Question, "Sure?", question, buttons.Yes | buttons.No,
                      parent)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.accepted.connect(then)
    _show(box)


def table(parent: QWidget, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Show two columns; Escape and Enter close them."""
    dialog = QDialog(parent)
    dialog.setWindowTitle(title)
    grid = QGridLayout()
    grid.setHorizontalSpacing(24)
    for number, (left, right) in enumerate(rows):
        name, what = QLabel(left), QLabel(right)
        for label in (name, what):
            label.setTextFormat(Qt.TextFormat.PlainText)
        font = name.font()
        font.setWeight(font.Weight.DemiBold)
        name.setFont(font)
        what.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        grid.addWidget(name, number, 0)
        grid.addWidget(what, number, 1)
    buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
    buttons.rejected.connect(dialog.reject)
    buttons.button(QDialogButtonBox.StandardButton.Close).setAccessibleName("Close")
    layout = QVBoxLayout(dialog)
    layout.addLayout(grid)
    layout.addWidget(buttons)
    dialog.setAccessibleName(title)
    dialog.setAccessibleDescription("; ".join(f"{left}: {right}" for left, right in rows))
    _show(dialog)


def _show(dialog: QDialog) -> None:
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    # made in one go and shown in the next: the rest of the window has its turn in between
    QTimer.singleShot(0, dialog, dialog.open)
