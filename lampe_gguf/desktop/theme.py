"""Light and dark: the colours of the window, and those of the three grains."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QPalette
from PySide6.QtWidgets import QApplication, QWidget

SYSTEM, LIGHT, DARK = "system", "light", "dark"
CHOICES = (SYSTEM, LIGHT, DARK)


@dataclass(frozen=True)
class Theme:
    """Colours by what they are for; `local`, `middle` and `tail` are told apart by those who see
    no red or no green, too, and carry their name where they are shown."""

    name: str
    window: str
    base: str
    raised: str
    text: str
    faint: str
    line: str
    accent: str
    on_accent: str
    said: str
    info: str
    error: str
    local: str
    middle: str
    tail: str

    def colour(self, name: str) -> QColor:
        """One of them, by its name."""
        return QColor(getattr(self, name))


LIGHT_THEME = Theme(
    name=LIGHT, window="#f3f4f7", base="#ffffff", raised="#ffffff", text="#1b2230", faint="#5a6474",
    line="#d5d9e1", accent="#2463c4", on_accent="#ffffff", said="#e8eefa", info="#e6effc",
    error="#fbe5e4", local="#3f86d0", middle="#eaa62b", tail="#2c9c78",
)
DARK_THEME = Theme(
    name=DARK, window="#191c22", base="#20242c", raised="#272c36", text="#e7eaf0", faint="#9aa4b4",
    line="#39404d", accent="#7aacf5", on_accent="#10151d", said="#29354a", info="#22324c",
    error="#4d2626", local="#5b9fe3", middle="#d9982a", tail="#36a883",
)


def chosen(choice: str) -> Theme:
    """The theme of a choice; the system's where there is none."""
    if choice not in (LIGHT, DARK):
        scheme = QApplication.styleHints().colorScheme()
        choice = DARK if scheme == Qt.ColorScheme.Dark else LIGHT
    return DARK_THEME if choice == DARK else LIGHT_THEME


def palette(theme: Theme) -> QPalette:
    """Qt's own colours, for the controls of a theme."""
    role = QPalette.ColorRole
    made = QPalette()
    for roles, name in (
        ((role.Window, role.Button, role.AlternateBase), "window"),
        ((role.Base,), "base"),
        ((role.ToolTipBase, role.Light), "raised"),
        ((role.WindowText, role.Text, role.ButtonText, role.ToolTipText), "text"),
        ((role.PlaceholderText,), "faint"),
        ((role.Mid, role.Midlight), "line"),
        ((role.Highlight, role.Link, role.Accent), "accent"),
        ((role.HighlightedText,), "on_accent"),
    ):
        for each in roles:
            made.setColor(each, theme.colour(name))
    for each in (role.WindowText, role.Text, role.ButtonText):
        made.setColor(QPalette.ColorGroup.Disabled, each, theme.colour("faint"))
    return made


def style_sheet(theme: Theme) -> str:
    """What a palette cannot say: borders, corners and distances."""
    return f"""
    QListView, QTextEdit, QPlainTextEdit {{ background: {theme.base}; color: {theme.text};
        border: 1px solid {theme.line}; border-radius: 8px; padding: 6px;
        selection-background-color: {theme.accent}; selection-color: {theme.on_accent}; }}
    QListView:focus, QTextEdit:focus, QPlainTextEdit:focus {{ border: 2px solid {theme.accent};
        padding: 5px; }}
    QPushButton {{ background: {theme.raised}; color: {theme.text};
        border: 1px solid {theme.line}; border-radius: 6px; padding: 5px 12px; }}
    QPushButton:hover {{ border-color: {theme.accent}; }}
    QPushButton:focus {{ border: 2px solid {theme.accent}; padding: 4px 11px; }}
    QPushButton:disabled {{ color: {theme.faint}; background: {theme.window}; }}
    QPushButton#send {{ background: {theme.accent}; color: {theme.on_accent};
        border-color: {theme.accent}; font-weight: 600; }}
    QPushButton#send:focus {{ border: 2px solid {theme.text}; }}
    QPushButton#send:disabled {{ background: {theme.window}; color: {theme.faint};
        border-color: {theme.line}; }}
    QProgressBar {{ background: {theme.line}; border: none; border-radius: 3px;
        min-height: 6px; max-height: 6px; }}
    QProgressBar::chunk {{ background: {theme.accent}; border-radius: 3px; }}
    QFrame#notice[kind="error"] {{ background: {theme.error}; border-radius: 8px; }}
    QFrame#notice[kind="info"] {{ background: {theme.info}; border-radius: 8px; }}
    QLabel#faint, QLabel#hint {{ color: {theme.faint}; }}
    QLabel#heading {{ font-weight: 600; }}
    QStackedWidget#page {{ background: {theme.base}; border: 1px solid {theme.line};
        border-radius: 8px; }}
    QStackedWidget#page QTextEdit {{ border-color: {theme.base}; }}
    QSplitter::handle {{ background: {theme.window}; }}
    """


def put_on(application: QApplication, parts: QWidget, theme: Theme) -> None:
    """Have all windows wear the colours of a theme, and `parts` the rest of it.

    Not the dialogs: to look for a style sheet's rules for each of a file dialog's sixty controls
    took longer than to make and show it.
    """
    application.setPalette(palette(theme))
    parts.setStyleSheet(style_sheet(theme))
