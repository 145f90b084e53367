"""Results as they come, a line of JSON each, so that nothing that was answered is lost.

Each line ends with a checksum over itself and the settings: what damage leaves is told from what it
changed, and without a first line, too, which answers belong to this run.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

from ...container.paths import open_regular
from ...errors import LampeError, UsageError

HEADER = "lampe-gguf eval"
FIRST_BYTES = b'{"journal": "lampe-gguf eval"'
MOST_SECONDS = 1e9  # 30 years
# no text in a line holds it unescaped: where a line's end was damaged, the next begins here
NEXT_RECORD = re.compile(rb'(?=\{"task": )')


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
    skipped   numbers of the lines that are damaged: what they held is lost, and nothing else
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings = settings
        self.found: dict[tuple[str, int, str, str, str], Result] = {}
        self.skipped: list[int] = []
        self.file: io.FileIO | None = None

    def __enter__(self) -> Journal:
        if self.path is None:
            return self
        try:
            # one description for reading and appending: what is read is what is added to
            self.file = io.FileIO(
                open_regular(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "r+"
            )
            self._load(self.file.readall())
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

    def damage(self) -> str | None:
        """A sentence about the lines that could not be read, None where all could."""
        if not self.skipped:
            return None
        lines = ", ".join(map(str, self.skipped[:10])) + (", ..." if self.skipped[10:] else "")
        what = f"line {lines} of {self.path} is" if len(self.skipped) == 1 else (
            f"{len(self.skipped)} lines of {self.path} ({lines}) are")
        return f"{what} damaged and left out; what was answered there is asked again"

    def _write(self, record: dict[str, Any]) -> None:
        if self.file is None:
            return
        record = {**record, "check": checksum(self.settings, record)}
        self._append((json.dumps(record, ensure_ascii=True) + "\n").encode())

    def _append(self, line: bytes) -> None:
        assert self.file is not None
        try:
            written = 0
            while written < len(line):
                written += self.file.write(line[written:]) or 0
            os.fsync(self.file.fileno())
        except OSError as error:
            raise LampeError(
                f"cannot write {self.path}: {error.strerror}; what is in it can be gone on from"
            ) from None

    def _load(self, data: bytes) -> None:
        assert self.file is not None
        whole, newline, last = data.rpartition(b"\n")
        lines = whole.split(b"\n") if newline else []
        is_torn = _parse(last) is None
        settings, results, damaged = self._read(lines if is_torn else [*lines, last])
        if settings is None and not results:
            self._require_ours(data)
            # nothing but what a crash leaves: blocks of zeros, half of the first line
            self.file.truncate(0)
        else:
            if settings is not None:
                self._compare(settings)
            self.found = {result.key: result for result in results}
            self.skipped = damaged
            if not is_torn:
                self._append(b"\n")
            elif last:
                # the half line that an interruption left would join the next one
                self.file.truncate(len(data) - len(last))
        if settings is None:
            self._write({"journal": HEADER, "settings": self.settings})

    def _read(self, lines: list[bytes]) -> tuple[dict[str, Any] | None, list[Result], list[int]]:
        """The settings of the file (None where that line is lost), results, damaged lines."""
        records: list[tuple[int, dict[str, Any]]] = []
        damaged: set[int] = set()
        settings: dict[str, Any] | None = None
        for number, line in enumerate(lines, 1):
            for part in [part for part in NEXT_RECORD.split(line) if part] or [line]:
                record = _parse(part)
                if record is None:
                    damaged.add(number)
                elif settings is None and _is_header(record):
                    settings = record["settings"]
                elif not _is_header(record):
                    records.append((number, record))
        results: list[Result] = []
        for number, record in records:
            # without the first line, only the checksum says what a result belongs to
            expected = self.settings if settings is None else settings
            check = record.pop("check", None)
            right = settings is not None if check is None else check == checksum(expected, record)
            result = _result(record) if right else None
            if result is None:
                damaged.add(number)
            else:
                results.append(result)
        return settings, results, sorted(damaged)

    def _require_ours(self, data: bytes) -> None:
        """LampeError for a file that is not this run's and holds something."""
        first = data.strip(b"\0 \r\n\t")
        if FIRST_BYTES.startswith(first[: len(FIRST_BYTES)]) and b'{"task": ' not in first:
            return
        if first.startswith(FIRST_BYTES):
            raise LampeError(
                f"the first line of {self.path}, which says what it was begun with, is damaged, "
                "and no answer in it is known to be of this run; give another --resume FILE"
            )
        raise LampeError(
            f"{self.path} is not a journal of lampe-gguf eval; give another --resume FILE"
        )

    def _compare(self, settings: dict[str, Any]) -> None:
        for name in dict.fromkeys((*self.settings, *settings)):
            before, value = settings.get(name), self.settings.get(name)
            if before != value:
                raise UsageError(
                    f"{self.path} was begun with {name} {before!r} and now it is {value!r}; give "
                    "another --resume FILE"
                )


def checksum(settings: dict[str, Any], record: dict[str, Any]) -> str:
    """Of a line under its settings: 8 hexadecimal digits (CRC-32)."""
    given = {name: value for name, value in settings.items() if value is not None}
    return f"{zlib.crc32(json.dumps([given, record], sort_keys=True).encode()):08x}"


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _is_header(record: dict[str, Any]) -> bool:
    settings = record.get("settings")
    if record.get("journal") != HEADER or not isinstance(settings, dict):
        return False
    rest = {name: value for name, value in record.items() if name != "check"}
    return record.get("check") in (None, checksum(settings, rest))


def _result(record: dict[str, Any]) -> Result | None:
    """None where a value is missing or none that an answer can have: without a checksum, a line
    may hold anything."""
    if set(record) != {field.name for field in dataclasses.fields(Result)}:
        return None
    result = Result(**record)
    texts = (result.task, result.method, result.id, result.prompt, result.metric, result.answer)
    counts = (result.length, result.prompt_tokens, result.read)
    is_right = (
        all(isinstance(text, str) for text in texts)
        and isinstance(result.expected, list)
        and all(isinstance(text, str) for text in result.expected)
        and all(type(count) is int and 0 <= count < 2**63 for count in counts)
        and _is_between(result.score, 1.0)
        and (result.depth is None or _is_between(result.depth, 1.0))
        and _is_between(result.seconds, MOST_SECONDS)
    )
    return result if is_right else None


def _is_between(value: object, most: float) -> bool:
    """Whether it is a number of 0 ... most; no bool and no NaN is."""
    return type(value) in (int, float) and 0 <= value <= most  # type: ignore[operator]
