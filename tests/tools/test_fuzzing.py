"""Seconds of each fuzzer, from fixed seeds, and that each finds what was planted for it.

tools/fuzz.py runs them for longer.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzzing import quick_place
from fuzzing.containers import Containers, damage, whole_file
from fuzzing.faults import Faults
from fuzzing.metadata import Metadata

from lampe_gguf.container import atomic, rewrite
from lampe_gguf.container import reader as gguf_file
from lampe_gguf.container import writer as gguf_output
from lampe_gguf.errors import LampeError
from lampe_gguf.model import architectures

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=quick_place() or tmp_path) as folder:
        yield Path(folder)


def finds(fuzzer: Any, tries: int, seed: int = 0) -> str | None:
    """The first thing that is wrong within so many tries."""
    try:
        for number in range(tries):
            wrong = fuzzer.try_one(random.Random(f"test {seed} {number}"))
            if wrong is not None:
                return f"{number}: {wrong}"
        return None
    finally:
        fuzzer.close()


def seek(fuzzer: Any, said: str, tries: int) -> None:
    """Fail unless `said` is said of some input."""
    found = []
    for seed in range(tries):
        wrong = finds(fuzzer, 1, seed)
        if wrong is not None and said in wrong:
            return
        found += [wrong] if wrong is not None else []
    pytest.fail(f"not found; {found[:3]}")


def test_the_same_seed_makes_the_same_file() -> None:
    made = [damage(whole_file(rng), rng) for rng in (random.Random(5), random.Random(5))]
    assert made[0] == made[1]


def test_containers(place: Path) -> None:
    fuzzer = Containers(place)
    assert finds(fuzzer, 150) is None
    assert fuzzer.taken > 40 and fuzzer.compared > 30


def test_metadata(place: Path) -> None:
    fuzzer = Metadata(place)
    assert finds(fuzzer, 80) is None
    assert fuzzer.loaded > 10


def test_faults(place: Path) -> None:
    fuzzer = Faults(place)
    assert finds(fuzzer, 60) is None
    assert 0 < fuzzer.done < 60


def forget_a_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures.Field, "holds", lambda self, value: True)


def refuse_a_good_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def strict(file: gguf_file.GGUFFile) -> int:
        raise LampeError("no")

    monkeypatch.setattr(gguf_file.GGUFFile, "_read_alignment", strict)


def pad_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def offset(source: Any, kept: Any, added: Any) -> int:
        return gguf_output.padded(gguf_output._header_end(source, kept, added), source.alignment)

    monkeypatch.setattr(gguf_output, "_rest_offset", offset)


def lose_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_output, "check_written", lambda *_: None)
    monkeypatch.setattr(rewrite, "check_written", lambda *_: None)
    runs = gguf_output._runs
    monkeypatch.setattr(gguf_output, "_runs", lambda pairs: runs(pairs)[::-1])
    real = rewrite.write_gguf
    monkeypatch.setattr(rewrite, "write_gguf", lambda fd, source, kept, *more: real(
        fd, source, sorted(kept, key=lambda pair: pair.key), *more))


def lose_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    real = rewrite.write_gguf
    monkeypatch.setattr(rewrite, "check_written", lambda *_: None)
    monkeypatch.setattr(rewrite, "write_gguf", lambda fd, source, kept, *more: real(
        fd, source, [pair for pair in kept if pair.key != "vendor.key.2"], *more))


@pytest.mark.parametrize("plant, said", [
    (forget_a_type, "TypeError"), (refuse_a_good_file, "in order"),
    (pad_without_data, "bytes became"), (lose_the_order, "give the input back"),
    (lose_a_key, "give the input back"),
])
def test_planted_in_the_converter(
    place: Path, monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None], said: str,
) -> None:
    plant(monkeypatch)
    seek(Containers(place), said, 1500)


def test_planted_in_the_loader(place: Path) -> None:
    side = place / "side.py"
    side.write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {os.fspath(TOOLS / 'fuzzing')!r})\n"
        "import metadata_side\n"
        "def use(path, way):\n"
        "    if b'inf' in path.encode() or os.path.getsize(path) % 7 == 3: os.abort()\n"
        "metadata_side.use = use\n"
        "metadata_side.main()\n"
    )
    fuzzer = Metadata(place)
    fuzzer.side = side
    assert "the process ended with -6" in str(finds(fuzzer, 60))


def no_undoing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic.NewFiles, "_restore", lambda self: None)


def no_clearing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic.NewFiles, "_clear", lambda self: None)


def no_cleaning_after_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "remove_leftovers", lambda directory: None)


def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_target(self: Any, output: Any, mode: int) -> int:
        output.hidden = output.target
        return os.open(output.target, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    monkeypatch.setattr(atomic.NewFiles, "_open", open_target)
    monkeypatch.setattr(atomic.NewFiles, "_clear", lambda self: None)


@pytest.mark.parametrize("plant, said", [
    (no_undoing, "some names are new"), (no_clearing, "left behind"),
    (no_cleaning_after_others, "the next run leaves"), (in_place, "neither the old file nor"),
])
def test_planted_in_the_commit(
    place: Path, monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None], said: str,
) -> None:
    fuzzer = Faults(place)
    plant(monkeypatch)
    seek(fuzzer, said, 400)


def test_the_command(place: Path) -> None:
    command = [sys.executable, str(TOOLS / "fuzz.py"), "--what", "container", "--keep",
               str(place / "found")]
    done = subprocess.run([*command, "--only", "3"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "container: 0 wrong; tried 1" in done.stdout, done.stderr
    assert not (place / "found").exists()
    done = subprocess.run([*command, "--minutes", "0"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "'0' is not a whole number of at least 1" in done.stderr


def test_what_is_found_is_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fuzz

    refuse_a_good_file(monkeypatch)
    for number in range(30):
        if fuzz.fuzz("container", 60, 1, place / "found", number):
            break
    kept = place / "found" / f"container-1-{number}"
    assert "in order" in (kept / "wrong.txt").read_text() and (kept / "in.gguf").exists()
    assert str(kept) in capsys.readouterr().out
