"""Run the backend's computations in one thread, so that Ctrl-C need not wait for their end.

Always the same thread: OpenMP keeps a team of workers for every thread that computes, and those of
the last one go on spinning for a while. With a thread for each batch, two teams shared the cores.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable

from ..errors import LampeError

_Job = Callable[[], None]


class _Worker:
    """A thread that does what it is given, in order, as long as the process lives."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._process = os.getpid()
        threading.Thread(target=self._work, name="lampe-gguf computing", daemon=True).start()

    def is_here(self) -> bool:
        """False in a child that was forked: threads stay behind."""
        return self._process == os.getpid()

    def give(self, job: _Job) -> None:
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            self._jobs.get()()


_worker: _Worker | None = None


def run_aside(work: _Job, stop: _Job) -> None:
    """Call `work` in that thread and wait; raises what it raises. For the main thread alone.

    stop  called where the waiting is interrupted (Ctrl-C); it must make `work` end soon, which
          is waited for before the interruption goes on
    """
    global _worker
    raised: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)
        finally:
            done.set()

    if _worker is None or not _worker.is_here():
        try:
            _worker = _Worker()
        except RuntimeError:  # threads are all that it can be about
            raise LampeError(
                "the system gives no thread to compute in; close other programs or raise its limits"
            ) from None
    _worker.give(run)
    # An event and not Thread.join: before Python 3.13, Ctrl-C in join() takes the thread for
    # finished (bpo-45274), and the context would be in use twice.
    try:
        while not done.wait(0.05):
            pass
    except BaseException:
        stop()
        while not done.is_set():
            with contextlib.suppress(KeyboardInterrupt):
                done.wait(0.05)
        raise
    if raised:
        raise raised[0]
