"""What the program remembers from one time to the next: the last model, the window, the theme."""

from __future__ import annotations

import threading

from PySide6.QtCore import QByteArray, QSettings, QThreadPool

ORGANISATION, PROGRAM = "lampe-gguf", "desktop"


class Memory:
    """Values by name: read once, before there is a window; written in a thread of its own.

    file  where they are; "" for the user's own settings
    """

    def __init__(self, file: str = "") -> None:
        self._file = file
        self._lock = threading.Lock()
        settings = self._settings()
        self._values = {name: settings.value(name) for name in settings.allKeys()}

    def _settings(self) -> QSettings:
        if self._file:
            return QSettings(self._file, QSettings.Format.IniFormat)
        return QSettings(ORGANISATION, PROGRAM)

    def text(self, name: str) -> str:
        """A value as text, "" for none."""
        value = self._values.get(name)
        return value if isinstance(value, str) else ""

    def data(self, name: str) -> QByteArray:
        """A value as bytes, none for none."""
        value = self._values.get(name)
        return value if isinstance(value, QByteArray) else QByteArray()

    def keep(self, **values: str | QByteArray) -> None:
        """Remember values; nothing is said where the disk takes none."""
        changed = {name: value for name, value in values.items()
                   if self._values.get(name) != value}
        self._values |= changed

        def write() -> None:
            with self._lock:
                settings = self._settings()
                for name, value in changed.items():
                    settings.setValue(name, value)
                settings.sync()

        if changed:
            QThreadPool.globalInstance().start(write)
