"""Progress lines, child processes and errors of the tools."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from .places import cache_dir

TICK_TERMINAL = 0.2
TICK_PLAIN = 5.0


class Failure(Exception):
    """What went wrong and what to do about it, in one sentence; the tool exits with 1."""


class Status:
    """One line that tells what runs, how far it is and for how long.

    On a terminal it is rewritten in place; elsewhere a new line appears every few seconds.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.detail = ""
        self.done = 0
        self.total = 0
        self.started = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Status:
        if not self._terminal:
            print(f"{self.label} ...", file=sys.stderr, flush=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        end = "done" if kind is None else "stopped"
        start = "\r\033[K" if self._terminal else ""
        seconds = time.monotonic() - self.started
        print(f"{start}{self.label}: {end} in {seconds:.1f} s", file=sys.stderr, flush=True)

    def _line(self) -> str:
        seconds = time.monotonic() - self.started
        parts = [self.label]
        if self.total:
            parts.append(f"[{self.done}/{self.total}]")
        parts.append(f"{seconds:.0f} s")
        if 0 < self.done < self.total and seconds > 3:
            parts.append(f"about {seconds / self.done * (self.total - self.done):.0f} s left")
        return "  ".join([*parts, self.detail])

    def _tick(self) -> None:
        while not self._stop.wait(TICK_TERMINAL if self._terminal else TICK_PLAIN):
            if self._terminal:
                width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
                print(f"\r\033[K{self._line()[: width - 1]}", end="", file=sys.stderr, flush=True)
            else:
                print(f"  {self._line()[:110]}", file=sys.stderr, flush=True)


_NINJA = re.compile(r"\[(\d+)/(\d+)\] (?:Building \w+ object )?(.*)")


def _show(status: Status, line: str) -> None:
    step = _NINJA.match(line)
    if step:
        status.done, status.total = int(step[1]), int(step[2])
        status.detail = step[3].rsplit("/", 1)[-1]
    elif line:
        status.detail = line


def run(
    command: Sequence[str | Path],
    label: str,
    *,
    explain: Callable[[str], str | None] = lambda output: None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a program behind a status line and return what it printed.

    The whole output goes to a log file in the cache. On failure its end is shown and
    Failure is raised, with the sentence that `explain` finds in the output, if any.
    """
    logs = cache_dir() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / (re.sub(r"\W+", "-", label.lower()).strip("-") + ".log")
    lines: deque[str] = deque(maxlen=4000)
    with Status(label) as status, log.open("w", encoding="utf-8") as out:
        try:
            child = subprocess.Popen(
                [str(part) for part in command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                env=dict(env) if env is not None else None,
                cwd=cwd,
            )
        except OSError as error:
            raise Failure(f"cannot run {command[0]}: {error.strerror}.") from None
        assert child.stdout is not None
        try:
            for line in child.stdout:
                out.write(line)
                lines.append(line)
                _show(status, line.strip())
            code = child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise
        output = "".join(lines)
        if code:
            raise Failure(_reason(output, label, code, log, explain))
    return output


def _reason(
    output: str, label: str, code: int, log: Path, explain: Callable[[str], str | None]
) -> str:
    if "No space left on device" in output:
        return f"{label}: the disk is full; free some space and run this again."
    found = explain(output)
    if found:
        return found
    tail = "".join(f"    {line}\n" for line in output.splitlines()[-25:])
    print(tail, end="", file=sys.stderr)
    return f"{label} failed with exit code {code}; the whole output is in {log}."


def guarded(main: Callable[[], int]) -> int:
    """Run a tool's main function and turn its failures into one sentence and an exit code."""
    try:
        return main()
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; run the same command to go on.", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno == errno.ENOSPC:
            print("error: the disk is full; free some space and run this again.", file=sys.stderr)
        else:
            print(f"error: {error.filename or 'system'}: {error.strerror}.", file=sys.stderr)
        return 1
