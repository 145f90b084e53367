"""Who may use a model, and when: one call at a time computes, and none reaches a closed model.

A call lasts from its first moment to its last, a stream's from its making to its end. Cancelling
is the call's own: whatever comes after it knows nothing of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import inspect
import threading
import types
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

from ..errors import LampeError

C = TypeVar("C", bound=type)

CLOSED = "the model is closed; open it again"


class Cancelled(LampeError):
    """The work was cancelled with `cancel()`; the context can be used as before.

    >>> from lampe_gguf import Cancelled, LampeLlama
    >>> with LampeLlama("model.gguf", n_ctx=512, n_batch=64) as llm:
    ...     llm.progress = lambda done, total: llm.cancel()  # or from another thread
    ...     try:
    ...         llm.eval(llm.tokenize(b"word " * 300))
    ...     except Cancelled:
    ...         print(f"read {llm.n_tokens} tokens")
    read 64 tokens
    """

    def __init__(self, message: str = "cancelled") -> None:
        super().__init__(message)


class Call:
    """One call that computes, with all that it calls."""

    cancelled = False
    thread: int | None = None  # of the latest step of its stream


class Calls:
    """The calls into one model. Threads exclude each other while they compute, not while they look.

    abort  what the backend looks at while it computes; true stops it
    """

    def __init__(self) -> None:
        self.abort = ctypes.c_bool(False)
        self._changed = threading.Condition()
        self._inside: Counter[int] = Counter()  # by thread, how many calls deep
        self._thread: int | None = None  # the one that computes
        self._call: Call | None = None  # the latest that has not ended: what cancel() means
        self._writer: tuple[Call | None, int] | None = None  # who last changed what was read
        self._closing = 0  # how many threads wait in close(): nobody else gets in
        self._closed = False

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """While this lasts the model stays open. Raises LampeError where it is closed."""
        me = threading.get_ident()
        entered = False
        try:
            with self._changed:
                if not self._is_inside(me):  # what has begun goes on to its end
                    self._require_open()
                self._inside[me] += 1
                entered = True
            yield
        finally:
            if entered:
                self._leave(me)

    @contextlib.contextmanager
    def computing(self, call: Call | None = None) -> Iterator[Call]:
        """While this lasts no other thread computes; inside of it, it is part of what lasts.

        call  the stream whose next step this is, None for a new call
        Raises LampeError where another thread computes or the model is closed.
        """
        me = threading.get_ident()
        if self._thread == me:
            assert self._call is not None
            yield self._call
            return
        entered = False
        try:
            with self._changed:
                if not self._is_inside(me):
                    self._require_open()
                if self._thread is not None:
                    raise LampeError("another thread is computing with this model; wait for it, "
                                     "stop it with cancel(), or open the model twice")
                if call is not None:
                    self._require_undisturbed(call, me)
                self._inside[me] += 1
                entered = True
                self._thread = me
                self._call = call = call or Call()
                self.abort.value = call.cancelled
            yield call
        finally:
            if entered:
                self._thread = None
                self._leave(me)

    def end(self, call: Call) -> None:
        """A call is over: there is nothing of it to cancel."""
        with self._changed:
            if self._call is call:
                self._call = None

    def cancel(self) -> None:
        """Cancel the call under way, whichever thread it is in; without one, nothing."""
        call = self._call  # this one is meant, should another begin before the lock is had
        if call is None:
            return
        with self._changed:
            call.cancelled = True
            if call is self._call:
                self.abort.value = self._thread is not None

    def interrupt(self) -> None:
        """Stop what the backend computes, as Ctrl-C does; the call is not cancelled by it."""
        self.abort.value = True

    def settle(self) -> None:
        """What the backend computed is over: the next computation begins unless cancelled."""
        with self._changed:
            self.abort.value = self.cancelled

    def is_mine(self) -> bool:
        """Whether this thread is inside a call that computes."""
        return self._thread == threading.get_ident()

    @property
    def cancelled(self) -> bool:
        """Whether the call that computes was cancelled."""
        return self._thread is not None and self._call is not None and self._call.cancelled

    def check(self) -> None:
        """Raise Cancelled if the call that computes was cancelled."""
        if self.cancelled:
            raise Cancelled

    def wrote(self) -> None:
        """What the context holds is another from here on."""
        self._writer = (self._call if self._thread else None, threading.get_ident())

    def close(self) -> bool:
        """Cancel what another thread computes and wait for its end; false where closed before."""
        me = threading.get_ident()
        with self._changed:
            if self._closed:
                return False
            if self._is_inside(me):
                raise LampeError("close() was called by what the model itself had called; close "
                                 "it when that is over")
            if self._thread is not None:
                self.cancel()
            self._closing += 1
            try:
                while +self._inside:
                    self._changed.wait(0.1)
                if self._closed:  # another thread waited, too
                    return False
                self._closed = True
            finally:
                self._closing -= 1
        return True

    def abandon(self) -> None:
        """Nobody holds the model any more, so nobody is inside, whatever was cut short."""
        self._inside.clear()

    def _require_undisturbed(self, call: Call, me: int) -> None:
        writer, thread = self._writer or (call, me)
        if call.thread is not None and writer is not call and thread != call.thread:
            raise LampeError("another thread has read something else into this model meanwhile, "
                             "so that this stream cannot go on; begin it again")
        call.thread = me

    def _require_open(self) -> None:
        if self._closed or self._closing:
            raise LampeError(CLOSED)

    def _is_inside(self, me: int) -> bool:
        return self._inside[me] > 0

    def _leave(self, me: int) -> None:
        with self._changed:
            if self._thread is None:
                self.abort.value = False
            self._inside[me] -= 1
            if not self._inside[me]:
                del self._inside[me]
            self._changed.notify_all()


class Guarded:
    """What has `_calls`, for `guarded`."""

    _calls: Calls


def guarded(looks: frozenset[str], free: frozenset[str]) -> Callable[[C], C]:
    """Make every public method and property of a class, inherited ones too, go through `_calls`.

    looks  names of methods that only look: they may be called while another thread computes
    free   names of methods that need no model
    """

    def decorate(cls: C) -> C:
        for name in dir(cls):
            if name in free or (name.startswith("_") and name != "__call__"):
                continue
            member = inspect.getattr_static(cls, name)
            if isinstance(member, property):
                assert member.fget is not None and member.fset is None
                setattr(cls, name, property(_looking(member.fget), doc=member.__doc__))
            elif isinstance(member, types.FunctionType):
                setattr(cls, name, (_looking if name in looks else _computing)(member))
        return cls

    return decorate


@contextlib.contextmanager
def _in_memory(name: str) -> Iterator[None]:
    """A method that gets no memory says so in a sentence."""
    try:
        yield
    except MemoryError:
        raise LampeError(
            f"there is no memory for what {name.strip('_')}() needs; close other programs, or open "
            "the model with a smaller n_ctx"
        ) from None


def _looking(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def look(self: Guarded, *args: Any, **options: Any) -> Any:
        with self._calls.looking(), _in_memory(function.__name__):
            return function(self, *args, **options)

    return look


def _computing(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def compute(self: Guarded, *args: Any, **options: Any) -> Any:
        calls = self._calls
        outer = calls.is_mine()
        with calls.computing() as call, _in_memory(function.__name__):
            is_stream = False
            try:
                found = function(self, *args, **options)
                is_stream = isinstance(found, types.GeneratorType)
            finally:
                if not outer and not is_stream:
                    calls.end(call)
        return _stream(calls, call, found, outer, function.__name__) if is_stream else found

    return compute


def _stream(
    calls: Calls, call: Call, stream: Generator[Any, Any, Any], outer: bool, name: str
) -> Generator[Any, Any, Any]:
    """A stream whose steps are the call's; between them, the model is whoever's wants it.

    outer  it is part of another call, which ends by itself
    name   of the method that made it
    """
    sent = None
    try:
        while True:
            with calls.computing(call), _in_memory(name):
                try:
                    found = stream.send(sent)
                except StopIteration as end:
                    return end.value
            sent = yield found
    finally:
        stream.close()
        if not outer:
            calls.end(call)
