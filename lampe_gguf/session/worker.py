"""A thread that carries out requests, one after the other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from ..backend.calls import Cancelled
from ..errors import LampeError
from .events import ENDS, Failed, Finished, Stopped
from .request import Request

T = TypeVar("T")
LETS_GO = ("close", "remove")  # takes no time, and would leave a journal locked
CLOSED = "the session is closed; begin another"


class Worker:
    """Requests wait in a queue; the thread ends when it is told to close.

    A job gets its request, and gives the result, or a Stopped where it kept what there was.
    on_end  called in the thread when it ends
    """

    def __init__(self, name: str, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self._changed = threading.Condition()
        self._queue: deque[tuple[Request[Any], Callable[[Request[Any]], Any]]] = deque()
        self._current: Request[Any] | None = None
        self._closing = False
        # a program that forgets to close must be able to end; see Session
        self._thread = threading.Thread(target=self._work, name=f"lampe-gguf {name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            raise LampeError("the system gives no thread to work in; close other programs or "
                             "raise its limits") from None

    @property
    def is_closing(self) -> bool:
        """Whether close() was called."""
        return self._closing

    def submit(self, kind: str, job: Callable[[Request[T]], T | Stopped]) -> Request[T]:
        """Have a job done when its turn has come."""
        request: Request[T] = Request(kind)
        with self._changed:
            if not self._closing:
                self._queue.append((request, job))
                self._changed.notify()
                return request
        request.say(Failed(LampeError(CLOSED)))
        return request

    def cancel(self, *, everything: bool = False) -> None:
        """Cancel what is done and what waits; what lets go of files only with `everything`."""
        with self._changed:
            requests = [request for request, _ in self._queue]
            if self._current is not None:
                requests.append(self._current)
        for request in requests:
            if everything or request.kind not in LETS_GO:
                request.cancel()

    def close(self) -> None:
        """Take no more requests, and cancel those that there are; the thread ends by itself."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self.cancel(everything=True)

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread's end; True where it has ended. In the thread itself: False."""
        if self._thread is threading.current_thread():
            return False
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    break
                self._current, job = self._queue.popleft()
            _carry_out(self._current, job)
            del job  # it may hold who holds this
            with self._changed:
                self._current = None
        self._on_end()


def _carry_out(request: Request[Any], job: Callable[[Request[Any]], Any]) -> None:
    if not request.begin():
        return
    try:
        found = job(request)
        request.say(found if isinstance(found, ENDS) else Finished(found))
    except Cancelled:
        request.say(Stopped())
    except LampeError as error:
        request.say(Failed(error))
    except MemoryError:
        request.say(Failed(LampeError("there is no memory for that; close other programs")))
    except Exception as error:  # a fault of ours: the thread lives on, and nobody waits for ever
        failed = LampeError(f"this should not have happened, please report it: "
                            f"{type(error).__name__}: {error}")
        failed.__cause__ = error
        request.say(Failed(failed))
