"""Load a model without a word, and without taking the process's output from other threads.

llama_cpp is silent while it loads by pointing the process's standard output and error at nothing:
what other threads print meanwhile is lost, and where two load at once, all that comes later.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from . import api

SILENT = 100  # above every level of the log

_here = threading.local()  # depth: how often this thread is inside quiet()
_lock = threading.Lock()


@contextlib.contextmanager
def quiet(silent: bool = True) -> Iterator[None]:
    """While this lasts, llama_cpp logs nothing in this thread and leaves the output alone.

    silent  False: nothing is changed
    """
    if not silent:
        yield
        return
    _prepare()
    _here.depth = getattr(_here, "depth", 0) + 1
    try:
        yield
    finally:
        _here.depth -= 1


def _is_quiet() -> bool:
    return getattr(_here, "depth", 0) > 0


class _Logger:
    """llama_cpp's logger, with a level that is this thread's own while it is quiet."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    @property
    def level(self) -> int:
        return SILENT if _is_quiet() else int(self._logger.level)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)


def _prepare() -> None:
    """Have llama_cpp ask whether this thread is quiet; once."""
    api.llama_cpp()
    from llama_cpp import _logger, _utils

    with _lock:
        if isinstance(_logger.logger, _Logger):
            return
        _logger.logger = _Logger(_logger.logger)
        upstream = _utils.suppress_stdout_stderr.__init__

        def begin(self: Any, disable: bool = True) -> None:
            upstream(self, disable or _is_quiet())

        _utils.suppress_stdout_stderr.__init__ = begin
