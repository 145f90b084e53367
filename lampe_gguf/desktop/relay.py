"""From events, which come in the session's threads, to functions that run on the UI thread."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QElapsedTimer, QObject, Qt, QThreadPool, QTimer, Signal

from lampe_gguf import Request

PAUSE = 33  # milliseconds between two deliveries: what comes faster comes together

Take = Callable[[list[Any]], None]  # what is called with the events of one delivery, in order

NICE = 5  # of threads that work, where the window's has 0: how much they step back (Linux)
_of_thread = threading.local()


def step_back() -> None:
    """Have the thread that calls this give way to the window's, once for all.

    So does what it starts from then on: the threads that compute. Where there are processors
    enough, nothing changes; where there are not, the window does not wait for the model.
    """
    if (not sys.platform.startswith("linux") or hasattr(_of_thread, "has_stepped_back")
            or threading.current_thread() is threading.main_thread()):
        return
    _of_thread.has_stepped_back = True
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


class Relay(QObject):
    """Delivers events on the thread that made it, at most thirty times a second.

    A worker that has something leaves it here and, where nobody has yet, emits one signal.
    """

    _called = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._left: deque[tuple[Take, Any]] = deque()
        self._is_called = False
        self._is_closed = False
        self._since = QElapsedTimer()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._deliver)
        self._called.connect(self._wait, Qt.ConnectionType.QueuedConnection)

    def follow(self, request: Request[Any], take: Take) -> None:
        """Have `take` called with the events of a request, in batches."""

        def hand_on(event: Any) -> None:
            step_back()
            self.post(take, event)

        request.listen(hand_on)

    def post(self, take: Take, event: Any) -> None:
        """Have `take` called with this, on the UI thread; from any thread."""
        self._left.append((take, event))
        if not self._is_called and not self._is_closed:
            self._is_called = True
            with contextlib.suppress(RuntimeError):  # the window has gone meanwhile
                self._called.emit()

    def in_background(self, work: Callable[[], Any], take: Take) -> None:
        """Do what touches files in a thread of its own; `take` gets [result] or [exception]."""

        def run() -> None:
            try:
                result = work()
            except Exception as error:
                result = error
            self.post(take, result)

        QThreadPool.globalInstance().start(run)

    def close(self) -> None:
        """Deliver nothing from now on."""
        self._is_closed = True
        self._timer.stop()
        self._left.clear()

    def _wait(self) -> None:
        if self._is_closed or self._timer.isActive():
            return
        passed = self._since.elapsed() if self._since.isValid() else PAUSE
        self._timer.start(max(0, PAUSE - passed))

    def _deliver(self) -> None:
        self._since.start()
        self._is_called = False  # before the last look: what comes after it calls again
        batches: list[tuple[Take, list[Any]]] = []
        while self._left:
            take, event = self._left.popleft()
            if batches and batches[-1][0] is take:
                batches[-1][1].append(event)
            else:
                batches.append((take, [event]))
        for take, events in batches:
            if not self._is_closed:
                take(events)
