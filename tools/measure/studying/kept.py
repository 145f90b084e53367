"""What was measured of one model: a line of JSON each, written anew as each is added."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lampe_gguf.container.atomic import write_file
from lampe_gguf.errors import LampeError

FOLDER = Path("tools/reports")
Key = tuple[str, str, int, str]  # what, text, length, method


@dataclass(frozen=True)
class Measured:
    """One measurement under one method.

    what     "perplexity", "recall", or the name of a task
    text     kind of text; "" for a task that makes its own
    values   a digest of the map, of how the text was read and of the text: another one is measured
             anew
    found    of perplexity: `losses`, nats by chunk of 256 tokens, None where a method gave them no
             context; of recall: `old` and `fresh`, nats a token by excerpt, far to near; of a task:
             `places` of the answers, 0 ... 1, and `scores`
    seconds  that it took: its share, where methods shared a reading
    """

    what: str
    text: str
    length: int
    method: str
    values: str
    found: dict[str, list[float | None]]
    seconds: float = 0.0
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.what, self.text, self.length, self.method


class Kept:
    """A model's file of measurements.

    window  the model's, of which lengths are multiples
    """

    def __init__(self, path: Path, model: str, window: int, size: int) -> None:
        self.path = path
        self.model = model
        self.window = window
        self.size = size
        self.all: dict[Key, Measured] = {}

    @classmethod
    def read(cls, path: Path) -> Kept:
        """What a file holds; LampeError for one of something else."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            kept = cls(path, data["model"], data["window"], data["bytes"])
            for each in data["measured"]:
                measured = Measured(**each)
                kept.all[measured.key] = measured
        except OSError as error:
            raise LampeError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise LampeError(
                f"{path} is no report of this study; give another --reports FOLDER, or move it away"
            ) from None
        return kept

    @classmethod
    def begin(cls, path: Path, model: str, window: int, size: int) -> Kept:
        """A file's, or none yet. LampeError for a file of another model."""
        if not path.exists():
            return cls(path, model, window, size)
        kept = cls.read(path)
        if (kept.window, kept.size) != (window, size):
            raise LampeError(f"{path} is of another file than {model}; move it away, or give the "
                             "model another name (NAME=PATH)")
        return kept

    def has(self, key: Key, values: str) -> bool:
        """Whether it was measured, with the same values."""
        found = self.all.get(key)
        return found is not None and found.values == values

    def add(self, measured: Measured) -> None:
        """Keep it: it is in the file when this returns."""
        self.all[measured.key] = measured
        lines = ",\n".join(json.dumps(asdict(each)) for _, each in sorted(self.all.items()))
        head = json.dumps({"model": self.model, "window": self.window, "bytes": self.size})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_file(self.path, f'{head[:-1]}, "measured": [\n{lines}\n]}}\n'.encode(), force=True)

    def of(self, what: str, text: str | None = None, length: int | None = None) -> list[Measured]:
        """All of a kind, in order of length."""
        return sorted((each for each in self.all.values()
                       if each.what == what and text in (None, each.text)
                       and length in (None, each.length)), key=lambda each: each.length)


def report_path(folder: Path, model: str) -> Path:
    return folder / f"study-{model}.json"


def all_reports(folder: Path, models: tuple[str, ...]) -> list[Kept]:
    """The reports of these models, or of all that there are."""
    paths = [report_path(folder, model) for model in models] or sorted(folder.glob("study-*.json"))
    return [Kept.read(path) for path in paths]
