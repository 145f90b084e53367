"""What the desktop's window looks like, and what it says to those who do not see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from desktop_window import Driver, application, opened_window

from PySide6.QtCore import Qt  # isort: skip
from PySide6.QtGui import QColor
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QLabel,
    QPlainTextEdit,
    QProgressBar,
    QTextEdit,
    QWidget,
)

from lampe_gguf.desktop.keys import ACTS, key_rows
from lampe_gguf.desktop.labels import Elided
from lampe_gguf.desktop.map_view import MapView
from lampe_gguf.desktop.theme import DARK_THEME, LIGHT_THEME, Theme
from lampe_gguf.desktop.window import LEAST

CONTROLS = (QAbstractButton, QAbstractItemView, QPlainTextEdit, QProgressBar, QTextEdit, MapView)
SENTENCE = "The keeper of the light wrote down every ship that passed. "
LONG_NAME = "a report with a name that fits nowhere at all, " * 2 + "2024.txt"
ASKED = ("Ctrl+O", "Ctrl+D", "Ctrl+N", "Ctrl+E", "Esc", "F1")


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    monkeypatch.setenv("LAMPE_GGUF_CHATS", str(tmp_path / "chats"))
    with opened_window(tmp_path / "settings.ini") as found:
        yield found


def visible(driver: Driver) -> list[QWidget]:
    return [each for each in driver.window.findChildren(QWidget)
            if each.isVisible() and not each.objectName().startswith("qt_")]


def test_every_control_has_a_name(driver: Driver) -> None:
    controls = [each for each in visible(driver) if isinstance(each, CONTROLS)]
    assert len(controls) >= 12
    unnamed = [each for each in controls if not each.accessibleName()]
    assert not unnamed
    driver.window.notice.say("Something is wrong", "error", [("Mend it", lambda: None)])
    assert driver.window.transcript.text.accessibleName() == "Conversation"
    names = {each.accessibleName() for each in visible(driver)}
    assert {"Something is wrong", "Mend it", "Close the notice", "Stop", "Question", "Ask",
            "Conversations", "What to do first", "Map of positions", "Progress",
            "Documents of this conversation"} <= names


def test_the_keyboard_reaches_every_control(driver: Driver) -> None:
    window = driver.window
    reached: set[QWidget] = set()
    window.composer.line.setPlainText("x")
    here: QWidget | None = window.composer.line
    for _ in range(60):
        assert here is not None
        reached.add(here)
        here = here.nextInFocusChain()
    wanted = {each for each in visible(driver) if isinstance(each, CONTROLS) and each.isEnabled()
              and not isinstance(each, QProgressBar)}
    assert wanted and wanted <= reached
    assert all(each.focusPolicy() & Qt.FocusPolicy.TabFocus for each in wanted)
    keys = [key for act in ACTS for key in act.keys]
    assert len(keys) == len(set(keys)) and set(ASKED) <= set(keys)
    assert all(act.keys for act in ACTS)  # whatever a menu has, a key has
    assert ("Shift+Enter", "A new line in the question") in key_rows()


def test_nothing_is_cut(driver: Driver, tmp_path: Path) -> None:
    window = driver.window
    path = tmp_path / LONG_NAME
    path.write_text(SENTENCE, encoding="utf-8")
    driver.add(path)
    window.notice.say(f"cannot read {path}: it is not there; give another one", "error",
                      [("Mend it", lambda: None)])
    for width, height in (LEAST, (1140, 780), (1800, 1000)):
        window.resize(width, height)
        for _ in range(5):
            application().processEvents()
        assert window.width() == width, "what it shows makes it wider"
        for each in visible(driver):
            if isinstance(each, QAbstractButton) and each.text():
                assert each.width() >= each.minimumSizeHint().width(), each.text()
                words = each.fontMetrics().horizontalAdvance(each.text().replace("&", ""))
                assert each.width() >= words, each.text()
            elif isinstance(each, QLabel) and each.text():
                assert each.height() >= each.heightForWidth(each.width()), each.text()
            elif isinstance(each, Elided):
                assert each.height() >= each.fontMetrics().height()
    (row,) = window.documents.list.rows
    assert row.title == LONG_NAME  # shown shortened, said whole
    index = window.documents.list.model().index(0, 0)
    assert LONG_NAME in index.data(Qt.ItemDataRole.AccessibleTextRole)
    assert LONG_NAME in index.data(Qt.ItemDataRole.ToolTipRole)


def contrast(one: QColor, other: QColor) -> float:
    """Of two colours, 1 to 21, as the WCAG define it."""
    def light(colour: QColor) -> float:
        parts = [colour.redF(), colour.greenF(), colour.blueF()]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
                            for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT_THEME, DARK_THEME], ids=lambda theme: theme.name)
def test_it_can_be_read(theme: Theme) -> None:
    for ink, ground in (("text", "base"), ("text", "window"), ("text", "said"), ("text", "info"),
                        ("text", "error"), ("faint", "base"), ("faint", "window"),
                        ("faint", "said"), ("accent", "said"), ("on_accent", "accent")):
        assert contrast(theme.colour(ink), theme.colour(ground)) >= 4.5, (ink, ground)
    grains = [theme.colour(name) for name in ("local", "middle", "tail")]
    for grain in grains:
        assert contrast(grain, theme.colour("base")) >= 2


def test_light_and_dark(driver: Driver) -> None:
    window = driver.window

    def ground() -> str:
        image = window.grab().toImage()
        at = window.transcript.mapTo(window, window.transcript.rect().center())
        return str(image.pixelColor(at.x(), at.y() + 100).name())

    seen = []
    for _ in range(3):
        window.change_theme()
        seen.append((window.memory.text("theme"), ground()))
    assert ("light", LIGHT_THEME.base) in seen and ("dark", DARK_THEME.base) in seen
    assert {choice for choice, _ in seen} == {"light", "dark", "system"}


def test_the_keys_are_shown(driver: Driver) -> None:
    driver.window.show_keys()
    dialog = driver.dialog()
    texts = [each.text() for each in dialog.findChildren(QLabel)]
    for act in ACTS:
        assert any(act.keys[0] in text for text in texts), act
    dialog.reject()
