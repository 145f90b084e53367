"""Work that somebody else does: what it says meanwhile, what comes out, and how to stop it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

from ..backend.calls import Cancelled
from ..errors import LampeError
from .events import ENDS, Event, Failed, Finished, Note, Progress, Stopped, Token

T = TypeVar("T")
Listener = Callable[[Event], None]

AGAIN = 0.05  # seconds after which what was told to stop is told again, until it has
OFTEN = 0.04  # seconds between two events of the same stage, at least

logger = logging.getLogger("lampe_gguf")


class Request(Generic[T]):
    """Work that was asked of a Session, from the asking to its end; all of it from any thread.

    kind  what was asked, "open", "ask" and so on

    Take its result (`result`, which waits, or `await`), or its events, one by one: iterate
    (`for`, `async for`), call `poll` now and then (in a program that has its own loop, as Tk's), or
    have `listen` call you. Each way sees all of them.

    >>> from lampe_gguf import Session
    >>> with Session("model.gguf", n_ctx=512) as session:
    ...     request = session.dialogue().ask("Who are you?", max_tokens=4)
    ...     names = [type(event).__name__ for event in request]
    ...     answer = request.result()
    >>> names[-1], answer.answer_tokens <= 4
    ('Finished', True)
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._changed = threading.Condition(threading.RLock())
        self._delivering = threading.RLock()  # one listener hears of one event after the other
        self._events: list[Event] = []
        self._listeners: list[Listener] = []
        self._polled = 0
        self._begun = self._cancelled = False
        self._stop: Callable[[], None] | None = None

    @property
    def end(self) -> Event | None:
        """The last event, Finished, Stopped or Failed; None while there is none."""
        events = self._events
        return events[-1] if events and isinstance(events[-1], ENDS) else None

    def done(self) -> bool:
        """Whether it is over."""
        return self.end is not None

    @property
    def is_cancelled(self) -> bool:
        """Whether cancel() was called before it was over."""
        return self._cancelled

    def cancel(self) -> None:
        """Stop the work, or have it never begin; it ends within a second. Later, it does nothing.
        """
        with self._changed:
            if self._cancelled or self.done():
                return
            self._cancelled = True
            begun = self._begun
            self._tell_to_stop()
        if not begun:  # nobody has to be waited for
            self.say(Stopped())
        elif not self.done():  # between two calls that can be told, perhaps: again
            threading.Thread(target=self._insist, name="lampe-gguf stopping", daemon=True).start()

    def exception(self, timeout: float | None = None) -> LampeError | None:
        """Wait for the end: why it failed, None where it did not. TimeoutError after `timeout`."""
        with self._changed:
            if not self._changed.wait_for(self.done, timeout):
                raise TimeoutError(f"not over after {timeout:g} s")
        end = self.end
        if isinstance(end, Stopped):
            return Cancelled()
        return end.error if isinstance(end, Failed) else None

    def result(self, timeout: float | None = None) -> T:
        """Wait for the end: what came out. Raises Cancelled, LampeError, TimeoutError likewise."""
        error = self.exception(timeout)
        if error is not None:
            raise error
        assert isinstance(self.end, Finished)
        result: T = self.end.result
        return result

    def poll(self) -> list[Event]:
        """What has happened since poll() was last called; does not wait."""
        with self._changed:
            new = self._events[self._polled :]
            self._polled += len(new)
        return new

    def listen(self, listener: Listener) -> None:
        """Have a function called with each event, those so far first.

        It is called in the thread that works, which waits for it: it should hand on what it gets
        and return (in Qt: emit a signal; in GTK: GLib.idle_add). What it raises is logged.
        """
        with self._delivering:
            with self._changed:
                self._listeners.append(listener)
                events = list(self._events)
            for event in events:
                _call(listener, event)

    def __iter__(self) -> Iterator[Event]:
        """Wait for one event after the other, the last included."""
        number = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._events) > number)  # noqa: B023
                event = self._events[number]
            number += 1
            yield event
            if isinstance(event, ENDS):
                return

    async def __aiter__(self) -> AsyncIterator[Event]:
        """The same where an asyncio loop runs."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()

        def hand_on(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(events.put_nowait, event)

        self.listen(hand_on)
        while True:
            event = await events.get()
            yield event
            if isinstance(event, ENDS):
                return

    def __await__(self) -> Generator[Any, None, T]:
        """The result; where the waiting task is cancelled, so is the work."""
        return self._awaited().__await__()

    async def _awaited(self) -> T:
        try:
            async for _ in self:
                pass
        except asyncio.CancelledError:
            self.cancel()
            raise
        return self.result()

    # what follows is for who does the work

    def begin(self) -> bool:
        """Whether it is to be done: not where it was cancelled while it waited."""
        with self._changed:
            self._begun = not self._cancelled
            return self._begun

    def check(self) -> None:
        """Raise Cancelled where it was cancelled."""
        if self._cancelled:
            raise Cancelled

    def say(self, event: Event) -> None:
        """Tell of an event. Raises Cancelled where it was cancelled, unless it is the last."""
        is_end = isinstance(event, ENDS)
        if not is_end and not self.done():
            self.check()
        with self._delivering:
            with self._changed:
                if self.done():
                    return
                self._events.append(event)
                if is_end:
                    self._stop = None
                listeners = list(self._listeners)
                self._changed.notify_all()
            for listener in listeners:
                _call(listener, event)
            if is_end:  # they may hold who holds this
                self._listeners.clear()

    def note(self, text: str) -> None:
        """Tell of a sentence."""
        self.say(Note(text))

    def token(self, text: str) -> None:
        """Tell of a piece of the answer."""
        self.say(Token(text))

    def progress(
        self, stage: str, unit: str, before: Callable[[int], int] = lambda done: 0
    ) -> Callable[[int, int], None]:
        """A function of (done, total) that tells of progress, often enough for the eye.

        before  called with done, for Progress.before
        It raises Cancelled where the work was cancelled. A total that is another begins anew.
        """
        pace = _Pace()

        def show(done: int, total: int) -> None:
            self.check()
            if pace.is_due(done, total):
                self.say(Progress(stage, done, total, unit, *pace.outlook(done, total),
                                  before(done)))

        return show

    @contextlib.contextmanager
    def stopped_by(self, stop: Callable[[], None]) -> Iterator[None]:
        """While this lasts, cancel() calls `stop`, more than once perhaps."""
        with self._changed:
            self._stop = stop
            if self._cancelled:
                raise Cancelled
        try:
            yield
        finally:
            with self._changed:
                self._stop = None

    def _tell_to_stop(self) -> None:
        if self._stop is not None:
            self._stop()

    def _insist(self) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(self.done, AGAIN):
                    return
                self._tell_to_stop()


class _Pace:
    """When to tell of progress again, and how long it will take, of one stage after another."""

    def __init__(self) -> None:
        self._total = self._done = -1
        self._start = self._latest = 0.0

    def is_due(self, done: int, total: int) -> bool:
        now = time.monotonic()
        if total != self._total or done < self._done:
            self._total, self._start, self._latest = total, now, 0.0
            self._first = done
        self._done = done
        if done < total and now - self._latest < OFTEN:
            return False
        self._latest = now
        return True

    def outlook(self, done: int, total: int) -> tuple[float | None, float | None]:
        """Units a second and seconds that are left, as far as they can be told."""
        seconds, part = time.monotonic() - self._start, done - self._first
        if seconds <= 0 or part <= 0:
            return None, None
        rate = part / seconds
        return rate, max(0, total - done) / rate if total else None


def _call(listener: Listener, event: Event) -> None:
    try:
        listener(event)
    except Exception:
        logger.exception("what listens to a request raised")
