"""How long the UI thread was ever away: measured where $LAMPE_GGUF_PAUSES names a file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from PySide6.QtCore import QObject, Qt, QTimer

ASK = "LAMPE_GGUF_PAUSES"
TICK = 2  # milliseconds between two looks at the clock


@dataclass
class Longest:
    """The longest pause during one activity, in seconds: when it was, and what went on in it.

    computed  by the thread itself
    queued    that it waited for a processor, where the system says so; the rest is Python's lock
    busiest   the most that the thread computed in one go, in whatever pause
    """

    pause: float = 0.0
    at: float = 0.0
    computed: float = 0.0
    queued: float = 0.0
    busiest: float = 0.0


def queued() -> float:
    """Seconds that this thread has waited for a processor so far (Linux; else 0)."""
    try:
        with open("/proc/thread-self/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


class Pauses(QObject):
    """A timer that ought to come every TICK milliseconds, and what it was late by.

    doing  says what the program is about, so that a pause can be put down to it
    """

    def __init__(self, file: str, doing: Callable[[], str]) -> None:
        super().__init__()
        self._file = file
        self._doing = doing
        self._began = time.perf_counter()
        self._last = (self._began, time.thread_time(), queued())
        self._longest: dict[str, Longest] = {}
        self._ticks = 0
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start(TICK)

    def _tick(self) -> None:
        now = (time.perf_counter(), time.thread_time(), queued())
        passed, computed, waited = (new - old for new, old in zip(now, self._last, strict=True))
        self._last = now
        self._ticks += 1
        found = self._longest.setdefault(self._doing(), Longest())
        pause = passed - TICK / 1000
        if pause > found.pause:
            found.pause, found.at = pause, now[0] - self._began
            found.computed, found.queued = computed, waited
        found.busiest = max(found.busiest, computed)

    def write(self) -> None:
        """The longest pauses by what was being done, in milliseconds; `at` in seconds."""
        def told(found: Longest) -> dict[str, float]:
            return {name: round(value if name == "at" else 1000 * value, 1)
                    for name, value in asdict(found).items()}

        text = json.dumps({"ticks": self._ticks, "by_activity": {
            doing: told(found) for doing, found in self._longest.items()}}, indent=2)
        Path(self._file).write_text(text, encoding="utf-8")
