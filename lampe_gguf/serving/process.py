"""llama-server as a process: started, waited for, ended with the program that started it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import LampeError
from ..shown import shown
from . import log

POLL = 0.1  # seconds
# Seconds that it has to end by itself. It does not where a client waits for an answer and stays:
# llama-server waits for the client then. What is cut is on no disk, so that it may be killed.
GRACE = 2.0
READER = 8.0  # seconds that the last lines of its log may take
KEPT_LINES = 400  # of the log, to say what went wrong

OnLine = Callable[[str], None]
OnWait = Callable[[float], None]  # seconds waited


def free_port(host: str, port: int) -> int:
    """The port to listen on, a free one for 0; LampeError where another program has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":  # as llama-server does, or a port just left would seem taken
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise LampeError(f"port {port} is in use by another program; give another --port, "
                                 "or 0 for any that is free") from None
            why = error.strerror or error
            raise LampeError(f"cannot listen on {shown(host)}, port {port} ({why}); give another "
                             "--host or --port") from None
        return int(probe.getsockname()[1])


class Server:
    """A running llama-server; `with` ends it.

    program, arguments  what is started, with `environment` added to this one's
    on_line             called with each line of its log, in a thread of its own
    """

    def __init__(
        self, program: Path, arguments: Sequence[str], environment: dict[str, str], url: str,
        model: Path, on_line: OnLine = lambda line: None,
    ) -> None:
        self.url = url
        self.model = model
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._on_line = on_line
        self.attention = log.Attention()
        self._process = subprocess.Popen(
            [str(program), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C is for us: we end it
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # as on Windows
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def wait_ready(self, on_wait: OnWait = lambda seconds: None) -> None:
        """Return when the model is loaded; LampeError with the reason where it is not.

        on_wait  called several times a second
        """
        start = time.monotonic()
        while not self._is_healthy():
            if self._process.poll() is not None:
                raise self._failure()
            on_wait(time.monotonic() - start)
            time.sleep(POLL)

    def wait(self) -> None:
        """Return when it is ended by somebody; LampeError where it fails."""
        while True:
            try:
                code = self._process.wait(timeout=1.0)  # on some systems Ctrl-C waits for a call
            except subprocess.TimeoutExpired:
                continue
            if code:
                raise self._failure()
            return

    def stop(self) -> None:
        """End it: answers under way are cut. Twice does nothing."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(timeout=READER)

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, ValueError):
            return False

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with stream:
            for line in stream:
                text = line.decode("utf-8", "replace").rstrip()
                self._lines.append(text)
                self.attention.read(text)
                self._on_line(text)

    def _failure(self) -> LampeError:
        self._reader.join(timeout=READER)
        code = self._process.returncode
        if code < 0:
            return LampeError(f"llama-server was ended by signal {-code}"
                              + ("; was there memory for it? give a smaller --ctx" if code == -9
                                 else "; --verbose shows its log"))
        return LampeError(log.reason(self._lines, self.model))


def _end_with_parent() -> None:
    """Linux: let the child get SIGTERM where this program dies without a word."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG
