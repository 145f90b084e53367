"""What a calibration knows: saved after every reading, gone on with by the next run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..container.atomic import write_file
from ..container.paths import open_regular
from ..errors import LampeError
from ..method.config import LampeConfig
from .fit import SigmoidFit
from .search import FloatArray

FORMAT = 1
EDGE = 1 << 20  # bytes of a model's begin and end that stand for all of it


@dataclass(frozen=True)
class Task:
    """What is read; results of another task are of no use to this one.

    model, text   fingerprints
    lengths       the ladder, tokens
    tail          tokens before each length whose loss counts
    """

    model: str
    text: str
    lengths: tuple[int, ...]
    tail: int


@dataclass(frozen=True)
class Point:
    """Best mapping length at one input length, and the range that the text cannot tell from it."""

    length: int
    best: int
    tied: tuple[int, int]


@dataclass(frozen=True)
class HeldOut:
    """A configuration on text that had no part in finding it.

    perplexity   at each length of the ladder, over its tail
    difference   mean loss less the baseline's, nats per token; `error` its standard error
    """

    name: str
    perplexity: list[float]
    difference: float
    error: float


@dataclass
class Report:
    """All of it: readings, the points and the curve, what was chosen and why.

    readings  losses, nats a token, [n_lengths][pieces of the tail] of each configuration read
    seconds   that the readings took
    config    what to write; complete: whether the held-out text decided about it
    """

    task: Task
    model_name: str
    text_names: list[str]
    window: int
    readings: dict[str, list[list[float]]] = field(default_factory=dict)
    seconds: float = 0.0
    points: list[Point] = field(default_factory=list)
    fit: SigmoidFit | None = None
    held_out: list[HeldOut] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    config: LampeConfig | None = None
    complete: bool = False

    def losses(self, segment: str, config: LampeConfig) -> FloatArray | None:
        """Those of a reading that was done, [n_lengths, pieces]."""
        found = self.readings.get(key(segment, config))
        return None if found is None else np.array(found, dtype=np.float64)

    def add(self, segment: str, config: LampeConfig, losses: FloatArray) -> None:
        self.readings[key(segment, config)] = losses.tolist()

    def perplexities(self, segment: str, config: LampeConfig) -> list[float]:
        losses = self.losses(segment, config)
        assert losses is not None
        return [math.exp(x) for x in losses.mean(axis=1)]

    def save(self, path: Path) -> None:
        """Write it whole, or leave what was there."""
        values = {"format": FORMAT, **dataclasses.asdict(self)}
        # JSON knows no NaN
        text = json.dumps(_without_nan(values), indent=1, allow_nan=False)
        write_file(path, text.encode(), force=True)


def key(segment: str, config: LampeConfig) -> str:
    """What a reading is kept under: all that changes its losses."""
    return f"{segment} {json.dumps(config.effective(), sort_keys=True)}"


def load_readings(path: Path, task: Task) -> tuple[dict[str, list[list[float]]], float]:
    """The readings and seconds of an earlier run of the same task.

    Raises LampeError where the file is no report, or one of another model, text or ladder.
    """
    loaded = _load(path)
    if loaded is None:
        return {}, 0.0
    found, readings, seconds = loaded
    if found != task:
        names = [x.name for x in dataclasses.fields(Task) if
                 getattr(found, x.name) != getattr(task, x.name)]
        raise LampeError(
            f"{path} belongs to another calibration ({' and '.join(names)} differ); run without "
            "--resume, or with the same model, text and lengths"
        )
    return readings, seconds


def longest_length(path: Path) -> int | None:
    """The end of the ladder that an earlier run chose, which later ones go on with; None: no file.

    Raises LampeError where the file is no report.
    """
    loaded = _load(path)
    return None if loaded is None else max(loaded[0].lengths)


def _load(path: Path) -> tuple[Task, dict[str, list[list[float]]], float] | None:
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            values = json.loads(file.read())
        if values["format"] != FORMAT:
            raise LampeError(f"{path} is a report of another version; run without --resume")
        task = Task(**{**values["task"], "lengths": tuple(values["task"]["lengths"])})
        readings = {
            name: [[math.nan if x is None else float(x) for x in row] for row in rows]
            for name, rows in values["readings"].items()
        }
        return task, readings, float(values["seconds"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LampeError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise LampeError(f"{path} is not a calibration report; run without --resume") from None


def model_fingerprint(path: Path) -> str:
    """SHA-256 of a file's size, begin and end: a model of many GB need not be read for this."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = path.stat().st_size
        digest.update(str(size).encode())
        digest.update(file.read(EDGE))
        file.seek(max(0, size - EDGE))
        digest.update(file.read(EDGE))
    return digest.hexdigest()


def text_fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {name: _without_nan(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(x) for x in value]
    return value
