"""The real window of the desktop program, without a screen, with the real session behind it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WHY = "PySide6 is not installed (pip install 'lampe-gguf[desktop]')"
pytest.importorskip("PySide6.QtWidgets", reason=WHY, exc_type=ImportError)

from PySide6.QtCore import QEvent, QMimeData, QPoint, QPointF, Qt, QThreadPool, QUrl  # noqa: E402
from PySide6.QtGui import QDragEnterEvent, QDropEvent  # noqa: E402
from PySide6.QtWidgets import QApplication, QDialog, QFileDialog, QLineEdit  # noqa: E402

from lampe_gguf.desktop.app import Wishes, make_window  # noqa: E402
from lampe_gguf.desktop.window import Window  # noqa: E402

SECONDS = 60  # for what takes one on a quiet machine
STOP = 1.0  # seconds within which everything stops
SLACK = 1.0  # more for a machine that computes other things, too


def application() -> QApplication:
    """Of this process, without a screen."""
    found = QApplication.instance()
    if found is None:
        found = QApplication(["lampe-gguf", "-platform", "offscreen"])
        found.setStyle("Fusion")
        found.setQuitOnLastWindowClosed(False)
    assert isinstance(found, QApplication)
    return found


class Driver:
    """A window, and what a person does with it."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.desk = window.desk
        self.worked: list[Any] = []  # what was said of work
        self.desk.working.connect(self.worked.append)

    def until(self, condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
        """What a condition gives as soon as it is true of anything; events are handled meanwhile.
        """
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, f"not so after {seconds} s; {self.state()}"
            application().processEvents()
            time.sleep(0.002)
        return found

    def state(self) -> str:
        window = self.window
        return (f"notice {window.notice.text!r}, activity {window.activity.label.text()!r}, "
                f"model {window.model_bar.name.text()!r}")

    def rest(self) -> None:
        """Until nothing runs, and all is written."""
        self.until(lambda: not self.desk.is_busy and self.window.transcript.is_written)

    def open(self, model: Path) -> None:
        self.window.open_model(model)
        self.until(lambda: self.desk.opened is not None and not self.desk.is_busy)

    def drop(self, *paths: Path) -> None:
        """Drop files on the window, as a file manager does."""
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
        at, action = QPoint(200, 200), Qt.DropAction.CopyAction
        how = (Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
        enter = QDragEnterEvent(at, action, data, *how)
        application().sendEvent(self.window, enter)
        drop = QDropEvent(QPointF(at), action, data, *how, QEvent.Type.Drop)
        application().sendEvent(self.window, drop)
        assert enter.isAccepted() and drop.isAccepted()

    def add(self, *paths: Path) -> None:
        """Drop files, and wait until they are there."""
        before = len(self.window.documents.list.rows)
        self.drop(*paths)
        self.until(lambda: len(self.window.documents.list.rows) >= before + len(paths)
                   and not self.desk.is_busy)

    def say(self, line: str) -> None:
        self.window.composer.line.setPlainText(line)
        assert self.window.composer.send.isEnabled(), self.window.composer.send.toolTip()
        self.window.composer.send.click()

    def answered(self, line: str) -> str:
        """Say a line, and give its answer."""
        turns = len(self.desk.current.dialogue.turns)
        self.say(line)
        self.until(lambda: len(self.desk.current.dialogue.turns) == turns + 1)
        self.rest()
        return str(self.desk.current.dialogue.turns[-1].answer)

    def stop(self) -> float:
        """Click on Stop; gives the seconds until nothing runs."""
        start = time.monotonic()
        assert self.window.activity.stop.isEnabled()
        self.window.activity.stop.click()
        self.until(lambda: not self.desk.is_busy, 10)
        return time.monotonic() - start

    def shown(self) -> str:
        """The transcript as it is to be read."""
        self.until(lambda: self.window.transcript.is_written)
        return self.window.transcript.text.toPlainText()

    def stages(self) -> set[str]:
        return {each.stage for each in self.worked if hasattr(each, "stage")}

    def dialog(self) -> QDialog:
        """The dialog that is open."""
        return self.until(lambda: next(
            (each for each in application().topLevelWidgets()
             if isinstance(each, QDialog) and each.isVisible()), None), 5)

    def choose(self, path: Path) -> None:
        """Choose a file in the dialog that asks for one."""
        dialog = self.dialog()
        assert isinstance(dialog, QFileDialog)
        line = dialog.findChild(QLineEdit)
        assert line is not None
        line.setText(str(path))
        dialog.accept()

    def close(self) -> float:
        """Close the window; gives the seconds until the session has ended."""
        ended: list[bool] = []
        self.window.closed.connect(lambda: ended.append(True))
        start = time.monotonic()
        self.window.close()
        assert self.window.isHidden()
        self.until(lambda: ended, 10)
        took = time.monotonic() - start
        self.window.deleteLater()
        application().sendPostedEvents(None, QEvent.Type.DeferredDelete)
        QThreadPool.globalInstance().waitForDone(2000)
        return took


@contextmanager
def opened_window(settings: Path, **wishes: Any) -> Iterator[Driver]:
    """A window that is shown; it is closed at the end. What a slot raises fails the test."""
    application()
    raised: list[BaseException] = []
    hook, sys.excepthook = sys.excepthook, lambda kind, error, trace: raised.append(error)
    values: dict[str, Any] = {"readings": False, "max_tokens": 24, "temperature": 0.0, **wishes}
    window = make_window(Wishes(settings=str(settings), **values))
    driver = Driver(window)
    window.show()
    try:
        yield driver
    finally:
        if not driver.desk.session.is_closed:
            driver.close()
        sys.excepthook = hook
    assert not raised, raised
