"""How long the UI thread was ever away: measured where $LAMPE_GGUF_PAUSES names a file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, Qt, QTimer

ASK = "LAMPE_GGUF_PAUSES"
TICK = 2  # milliseconds between two looks at the clock


class Pauses(QObject):
    """A timer that ought to come every TICK milliseconds, and what it was late by.

    doing  says what the program is about, so that a pause can be put down to it
    """

    def __init__(self, file: str, doing: Callable[[], str]) -> None:
        super().__init__()
        self._file = file
        self._doing = doing
        self._began = self._last = time.perf_counter()
        self._longest: dict[str, tuple[float, float]] = {}
        self._ticks = 0
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start(TICK)

    def _tick(self) -> None:
        now = time.perf_counter()
        pause = now - self._last - TICK / 1000
        self._last = now
        self._ticks += 1
        doing = self._doing()
        if pause > self._longest.get(doing, (0.0, 0.0))[0]:
            self._longest[doing] = (pause, now - self._began)

    def write(self) -> None:
        """Milliseconds of the longest pause, and when in seconds, by what was being done."""
        found = {doing: {"longest_ms": round(1000 * pause, 1), "at_s": round(at, 2)}
                 for doing, (pause, at) in self._longest.items()}
        text = json.dumps({"ticks": self._ticks, "by_activity": found}, indent=2)
        Path(self._file).write_text(text, encoding="utf-8")
