"""What a calibration knows: saved after every map that was asked, gone on with by the next run."""

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
from .objective import Losses, Objective, stacked, weighted

FORMAT = 2
EDGE = 1 << 20  # bytes of a model's begin and end that stand for all of it
FITTED = "fitted"  # the text that is searched on, read once under what convert would write
HELD_OUT = "held-out"  # the one that decides, read under each map that is asked


@dataclass(frozen=True)
class Task:
    """What is read and asked; results of another task are of no use to this one.

    model, text   fingerprints
    lengths       tokens, ascending: one inside the window, the others beyond it
    excerpts      of what was read, and fresh ones
    read_with     what the fitted text is read under
    """

    model: str
    text: str
    lengths: tuple[int, ...]
    excerpts: tuple[int, int]
    read_with: dict[str, Any]


@dataclass(frozen=True)
class Point:
    """The best mapping length L at one input length, and the range that cannot be told from it.

    by_unseen  the best by unseen loss alone, which is what perplexity sees
    """

    length: int
    best: int
    tied: tuple[int, int]
    by_unseen: int


@dataclass(frozen=True)
class Judged:
    """One map on one text; losses are means over excerpts, nats a token, NaN where not asked.

    kind              "baseline" (what convert would write), "map" of the grid, "extra" (a map with
                      one more change), "rival", "plain" (RoPE as it is), "calibrated"
    recall, unseen    at each length of the task
    objective         of the lengths beyond the window, weighted
    difference, error   of the objective, less the baseline's, on the same excerpts
    """

    name: str
    kind: str
    parameters: dict[str, Any]
    recall: list[float]
    unseen: list[float]
    objective: float
    difference: float
    error: float


@dataclass
class Report:
    """All of it: the losses, the points and the curve, what was chosen and why.

    losses      {"old": ..., "fresh": ...} of each map at each length, nats a token by excerpt
    seconds     that reading and asking took
    weights     of recall and unseen loss
    candidates  on the fitted text, all asked from one reading
    held_out    on the other, each read under its own map
    config      what to write; complete: whether the held-out text decided about it
    """

    task: Task
    model_name: str
    text_names: list[str]
    window: int
    weights: tuple[float, float] = (1.0, 1.0)
    losses: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    seconds: float = 0.0
    candidates: list[Judged] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    fit: SigmoidFit | None = None
    held_out: list[Judged] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    config: LampeConfig | None = None
    complete: bool = False

    @property
    def beyond(self) -> list[int]:
        """The lengths beyond the window, longest first."""
        return [x for x in reversed(self.task.lengths) if x > self.window]

    @property
    def inside(self) -> int:
        return self.task.lengths[0]

    @property
    def objective(self) -> Objective:
        return weighted(self.weights)

    def get(self, segment: str, length: int, config: LampeConfig) -> Losses | None:
        """Those of a map that was asked at a length."""
        found = self.losses.get(key(segment, length, config))
        return None if found is None else Losses(np.array(found["old"]), np.array(found["fresh"]))

    def add(self, segment: str, length: int, config: LampeConfig, losses: Losses) -> None:
        self.losses[key(segment, length, config)] = {
            "old": losses.old.tolist(), "fresh": losses.fresh.tolist()}

    def get_beyond(self, segment: str, config: LampeConfig) -> Losses | None:
        """A row for each length beyond the window; None unless it was asked at all of them."""
        found = [self.get(segment, length, config) for length in self.beyond]
        known = [x for x in found if x is not None]
        return stacked(known) if len(known) == len(found) else None

    def clear(self) -> None:
        """Forget what was concluded; the losses stay."""
        self.candidates, self.points, self.held_out, self.reasons = [], [], [], []
        self.fit, self.config, self.complete = None, None, False

    def save(self, path: Path) -> None:
        """Write it whole, or leave what was there."""
        values = {"format": FORMAT, **dataclasses.asdict(self)}
        # JSON knows no NaN
        text = json.dumps(_without_nan(values), indent=1, allow_nan=False)
        write_file(path, text.encode(), force=True)


def name_of(config: LampeConfig) -> str:
    """A map in few words: "4096/1024" is L/s1, "jetlong:2048" a neighbour and its local window."""
    if config.method != "lampe":
        return config.method + (f":{config.local_window}" if config.method != "rope" else "")
    name = f"{config.max_mapping_length:.0f}/{config.local_window}"
    if config.slope:
        name = f"sigmoid to {name}"
    if not config.tail_window:
        name += " no tail"
    if config.attention_factor != 1.0:
        name += f" x{config.attention_factor:g}"
    return name + (" plain inside" if config.short_length > config.window else "")


def key(segment: str, length: int, config: LampeConfig) -> str:
    """What losses are kept under: all that changes them."""
    return f"{segment} {length} {json.dumps(config.effective(), sort_keys=True)}"


def load_losses(path: Path, task: Task) -> tuple[dict[str, dict[str, list[float]]], float]:
    """The losses and seconds of an earlier run of the same task.

    Raises LampeError where the file is no report, or one of another model, text or lengths.
    """
    loaded = _load(path)
    if loaded is None:
        return {}, 0.0
    found, losses, seconds = loaded
    if found != task:
        names = [x.name for x in dataclasses.fields(Task) if
                 getattr(found, x.name) != getattr(task, x.name)]
        raise LampeError(
            f"{path} belongs to another calibration ({' and '.join(names)} differ); give another "
            "--report, or go on with the same model, text and lengths"
        )
    return losses, seconds


def saved_task(path: Path) -> Task | None:
    """What an earlier run read and asked, which later ones go on with; None: no file.

    Raises LampeError where the file is no report.
    """
    loaded = _load(path)
    return None if loaded is None else loaded[0]


def _load(path: Path) -> tuple[Task, dict[str, dict[str, list[float]]], float] | None:
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            values = json.loads(file.read())
        if values["format"] != FORMAT:
            raise LampeError(
                f"{path} is a report of another version of calibrate, which cannot be gone on "
                "with; give another --report"
            )
        task = values["task"]
        losses = {
            str(name): {part: [float(x) for x in found[part]] for part in ("old", "fresh")}
            for name, found in values["losses"].items()
        }
        old, fresh = task["excerpts"]
        lengths = tuple(int(x) for x in task["lengths"])
        return (Task(**{**task, "lengths": lengths, "excerpts": (int(old), int(fresh))}), losses,
                float(values["seconds"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LampeError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise LampeError(f"{path} is not a calibration report; give another --report") from None


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
