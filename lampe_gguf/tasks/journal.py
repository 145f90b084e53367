"""Results as they come, a line of JSON each, so that nothing that was answered is lost."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from pathlib import Path
from typing import Any

from ..errors import LampeError, UsageError

HEADER = "lampe-gguf eval"


@dataclasses.dataclass(frozen=True)
class Result:
    """One answer of one method.

    prompt         a digest of the tokens that were read, so that a changed prompt is asked again
    prompt_tokens  of the prompt; `read` of them were read for it, the rest was there already
    score          0 ... 1
    seconds        for reading and answering, wall clock
    """

    task: str
    length: int
    method: str
    id: str
    prompt: str
    depth: float | None
    metric: str
    expected: list[str]
    answer: str
    score: float
    prompt_tokens: int
    read: int
    seconds: float

    @property
    def key(self) -> tuple[str, int, str, str, str]:
        """What makes it the answer to one question."""
        return self.task, self.length, self.method, self.id, self.prompt


class Journal:
    """A context manager around the file; without a path it keeps results in memory alone.

    settings  what all results depend on (the model, say); a file that was begun with others is
              refused with a UsageError, one that is no journal with a LampeError
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings = settings
        self.found: dict[tuple[str, int, str, str, str], Result] = {}
        self.file: io.FileIO | None = None

    def __enter__(self) -> Journal:
        if self.path is None:
            return self
        try:
            # one description for reading and appending: what is read is what is added to
            self.file = io.FileIO(
                os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666), "r+"
            )
            self._load(self.file.readall().decode("utf-8", "replace"))
        except OSError as error:
            self.__exit__(None, None, None)
            raise LampeError(
                f"cannot use {self.path} as a journal: {error.strerror}; give another --resume FILE"
            ) from None
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def add(self, result: Result) -> None:
        """Keep a result: on the disk when this returns. LampeError where it does not fit."""
        self.found[result.key] = result
        self._write(dataclasses.asdict(result))

    def _write(self, record: dict[str, Any]) -> None:
        if self.file is None:
            return
        line = (json.dumps(record, ensure_ascii=True) + "\n").encode()
        try:
            written = 0
            while written < len(line):
                written += self.file.write(line[written:]) or 0
            os.fsync(self.file.fileno())
        except OSError as error:
            raise LampeError(
                f"cannot write {self.path}: {error.strerror}; what is in it can be gone on from"
            ) from None

    def _load(self, text: str) -> None:
        assert self.file is not None
        whole, newline, _ = text.rpartition("\n")
        if not newline:
            if text and not text.startswith('{"journal"'):
                raise self._not_ours()
            self.file.truncate(0)  # an interruption may have left half of the first line
            self._write({"journal": HEADER, "settings": self.settings})
            return
        first, *lines = whole.split("\n")
        try:
            header = json.loads(first)
            if header["journal"] != HEADER:
                raise self._not_ours()
            for line in lines:
                result = Result(**json.loads(line))
                self.found[result.key] = result
        except (ValueError, TypeError, KeyError):
            raise self._not_ours() from None
        for name in dict.fromkeys((*self.settings, *header["settings"])):
            before, value = header["settings"].get(name), self.settings.get(name)
            if before != value:
                raise UsageError(
                    f"{self.path} was begun with {name} {before!r} and now it is {value!r}; give "
                    "another --resume FILE"
                )
        # the half line that an interruption left would join the next one
        self.file.truncate(len((whole + newline).encode()))

    def _not_ours(self) -> LampeError:
        return LampeError(
            f"{self.path} is not a journal of lampe-gguf eval; give another --resume FILE"
        )
