"""Has another process read a document, for as long as it makes headway."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import LampeError, how_to_add
from .kinds import LIBRARIES, NAMES

MOST_SECONDS = 120.0  # without a page; a slow machine needs some for a long Word file
OnProgress = Callable[[int, int], None]

# -I: what lies in the working directory, beside documents from anywhere, is not imported
START = ("import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
         "from lampe_gguf.conversation.extract import main; main(sys.argv[2])")


@dataclass(frozen=True)
class Extracted:
    """The text of a document, with "[page N]" before each page where it has pages.

    pages     how many there are, None where the kind has none
    left_out  sentences about what is not in the text
    """

    text: str
    pages: int | None
    left_out: tuple[str, ...]


def extract(
    kind: str, data: bytes, name: str, on_progress: OnProgress | None = None
) -> Extracted:
    """The text of a document that is none itself; LampeError where there is none to be had.

    kind         as kinds.py has it, not "text"
    name         as it is to be shown
    on_progress  called with (pages or chapters, all of them; 0: not known yet), several times a
                 second, so that what it raises stops the reading soon
    """
    require_libraries(kind, name)
    pages: list[str] = []
    n_pages: int | None = None
    left_out: tuple[str, ...] = ()
    total = 0

    def waiting() -> None:
        if on_progress is not None:
            on_progress(len(pages), total)

    for record in _records(kind, data, name, waiting):
        total = record.get("of", total)
        if "text" in record:
            number, text = record.get("page"), record["text"]
            n_pages = number or n_pages
            if number is not None:
                text = f"[page {number}]\n{text}" if text else f"[page {number}: no text]"
            pages.append(text)
            if on_progress is not None and total:
                on_progress(len(pages), total)
        left_out += tuple(record.get("left_out", ()))
        if "error" in record:
            advice = "; open it where it was made and save it again" * record.get("damaged", False)
            raise LampeError(f"{name} {record['error']}{advice}")
    text = "\n\n".join(page for page in pages if page)
    return Extracted(text, n_pages, left_out)


def require_libraries(kind: str, name: str) -> None:
    """LampeError with the command to install what reads this kind, where it is missing."""
    for library in LIBRARIES[kind]:
        if importlib.util.find_spec(library) is None:
            raise MissingLibrary(
                f"{name} is {NAMES[kind]}, and what reads that is not installed ({library}); "
                f"{how_to_add('documents')}"
            )


class MissingLibrary(LampeError):
    """No document of its kind can be read: not a fault of the document."""


def _records(
    kind: str, data: bytes, name: str, waiting: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    try:
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            process = _start(kind, file.fileno(), name)
    except OSError as error:
        raise LampeError(f"cannot hand {name} to what reads it: {error.strerror}; a temporary file "
                         "takes as much as the document: free some space, or name a folder with "
                         "some in $TMPDIR") from None
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_hand_on, args=(process, lines), daemon=True).start()
    ended = False
    try:
        while line := _next(lines, name, waiting):
            with contextlib.suppress(ValueError):  # of a process that broke off within a line
                record = json.loads(line)
                ended = "end" in record or "error" in record
                yield record
        if not ended:
            raise LampeError(f"{name} is damaged: what reads {NAMES[kind]} broke down on it; open "
                             "it where it was made and save it again")
    finally:
        process.kill()
        process.wait()


def _start(kind: str, stdin: int, name: str) -> subprocess.Popen[bytes]:
    path = [*sys.path, str(Path(__file__).resolve().parents[2])]
    command = [sys.executable, "-I", "-c", START, json.dumps(path), kind]
    try:
        return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL)
    except OSError as error:
        raise LampeError(f"cannot start the reader of {name}: {error.strerror}") from None


def _hand_on(process: subprocess.Popen[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    assert process.stdout is not None
    with process.stdout as stream:
        for line in stream:
            lines.put(line)
    lines.put(b"")


def _next(
    lines: queue.SimpleQueue[bytes], name: str, waiting: Callable[[], None]
) -> bytes:
    """The next line, b"" at the end; waits in short pieces, between which Ctrl-C comes through."""
    latest = time.monotonic() + MOST_SECONDS
    while True:
        with contextlib.suppress(queue.Empty):
            return lines.get(timeout=0.1)
        waiting()
        if time.monotonic() > latest:
            raise LampeError(f"{name} was not read in {MOST_SECONDS:.0f} s, nor a page of it; save "
                             "it as plain text, or give a part of it")
