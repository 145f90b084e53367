"""A kill while several files get their names: the next run in the folder finishes the set."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_commit import NEW, OLD, contents
from test_convert import split

from lampe_gguf.container import leftovers, record
from lampe_gguf.container.atomic import write_file
from lampe_gguf.convert import convert_gguf

# converts a model, and is killed before the rename of that number
CONVERTING = """
import os, signal, sys
from pathlib import Path
from lampe_gguf.container import atomic
from lampe_gguf.convert import convert_gguf
number, call = int(sys.argv[3]), sys.argv[4]
real = getattr(os, call)
def counted(*given, **more):
    global number
    number -= 1
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **more)
setattr(os, call, counted)
convert_gguf(sys.argv[1], sys.argv[2], force=True)
"""

# one process a folder, killed before each system call of these modules
EVERYWHERE = """
import itertools, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_commit
from lampe_gguf.container.atomic import write_file
for number in itertools.count():
    folder = Path(sys.argv[1], str(number))
    folder.mkdir()
    test_commit.start(folder)
    child = os.fork()
    if child == 0:
        calls = itertools.count()
        for name in (*test_commit.CALLS, "pwrite"):
            def counted(*given, real=getattr(os, name), **more):
                if next(calls) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*given, **more)
            setattr(os, name, counted)
        test_commit.write_all(folder)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def killed(*arguments: object) -> None:
    done = subprocess.run([sys.executable, "-c", CONVERTING, *map(str, arguments)])
    assert done.returncode == -signal.SIGKILL


def make_set(tiny: Callable[..., Path], folder: Path, seed: int) -> list[Path]:
    folder.mkdir()
    return split(tiny(f"{folder.name}.gguf", lampe=None, seed=seed), folder)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("call, number", [
    ("replace", 0), ("replace", 1), ("replace", 2), ("unlink", 0), ("unlink", 4),
])
def test_a_killed_set_of_parts_is_finished(
    tiny: Callable[..., Path], tmp_path: Path, call: str, number: int
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    old = convert_gguf(make_set(tiny, tmp_path / "old", 1)[0], out / "model.gguf").outputs
    source = make_set(tiny, tmp_path / "new", 2)
    new = convert_gguf(source[0], tmp_path / "new" / "right.gguf").outputs
    assert [path.read_bytes() for path in old] != [path.read_bytes() for path in new]
    killed(source[0], out / "model.gguf", number, call)
    other = convert_gguf(tiny("other.gguf", lampe=None), out).outputs[0]
    assert [path.read_bytes() for path in old] == [path.read_bytes() for path in new]
    assert names(out) == {path.name for path in (*old, other)}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_killed_before_the_record_all_are_old(
    tiny: Callable[..., Path], tmp_path: Path, number: int
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    old = convert_gguf(make_set(tiny, tmp_path / "old", 1)[0], out / "model.gguf").outputs
    before = [path.read_bytes() for path in old]
    # two links to new parts, then three backups
    killed(make_set(tiny, tmp_path / "new", 2)[0], out / "model.gguf", 2 + number, "link")
    other = convert_gguf(tiny("other.gguf", lampe=None), out).outputs[0]
    assert [path.read_bytes() for path in old] == before
    assert names(out) == {path.name for path in (*old, other)}


def test_killed_before_every_call(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", EVERYWHERE, tmp_path, Path(__file__).parent], check=True, timeout=120
    )
    seen = []
    for number in range(len(names(tmp_path))):
        folder = tmp_path / str(number)
        write_file(folder / "other", b"")
        found = contents(folder)
        assert found.pop("other") == "" and found in (OLD, NEW), f"call {number}: {found}"
        seen.append(found == NEW)
    assert len(seen) > 40 and seen == sorted(seen) and set(seen) == {False, True}


def left_set(folder: Path) -> tuple[Path, list[Path]]:
    """What a kill between two renames leaves: a is new, b is still to come."""
    files = [folder / f".lampe-gguf-{number:016x}.tmp" for number in range(4)]
    entries = []
    for name, hidden, backup in (("a", *files[:2]), ("b", *files[2:])):
        (folder / name).write_text(f"old {name}")
        os.link(folder / name, backup)
        hidden.write_text(f"the new {name}")
        entries.append(record.entry(hidden, folder / name, backup))
    os.replace(files[0], folder / "a")
    path = folder / f".lampe-gguf-{9:016x}.set"
    path.write_bytes(record.encode(entries))
    return path, files[1:]


def test_a_set_that_someone_has_changed_since_is_kept(tmp_path: Path) -> None:
    path, hidden = left_set(tmp_path)
    (tmp_path / "b").unlink()
    (tmp_path / "b").write_text("from elsewhere")
    before = contents(tmp_path)
    write_file(tmp_path / "other", b"")
    assert contents(tmp_path) == before | {"other": ""}
    for each in hidden:
        each.unlink()
    write_file(tmp_path / "other", b"", force=True)  # nothing is left to be kept
    assert not path.exists() and (tmp_path / "b").read_text() == "from elsewhere"


def test_a_missing_new_file_keeps_the_old_ones(tmp_path: Path) -> None:
    _, hidden = left_set(tmp_path)
    hidden[1].unlink()
    before = contents(tmp_path)
    write_file(tmp_path / "other", b"")
    assert contents(tmp_path) == before | {"other": ""}


def test_a_record_that_a_program_holds_is_left_to_it(tmp_path: Path) -> None:
    path, _ = left_set(tmp_path)
    before = contents(tmp_path)
    with path.open("rb") as file:
        assert leftovers.hold(file.fileno(), path)
        write_file(tmp_path / "other", b"")
        assert contents(tmp_path) == before | {"other": ""}
    write_file(tmp_path / "other", b"", force=True)
    assert contents(tmp_path) == {"a": "the new a", "b": "the new b", "other": ""}


def test_another_users_record_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_set(tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    write_file(tmp_path / "other", b"")
    assert contents(tmp_path) == before | {"other": ""}


@pytest.mark.parametrize("target", ["../out", "/tmp/x", "", "..", "."])
def test_a_record_of_other_folders_is_none(tmp_path: Path, target: str) -> None:
    path, _ = left_set(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"target": "b"', f'"target": "{target}"'.encode()))
    write_file(tmp_path / "other", b"")
    assert contents(tmp_path) == {"a": "the new a", "b": "old b", "other": ""}


def test_a_set_is_finished_before_it_is_read(tiny: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    first = convert_gguf(make_set(tiny, tmp_path / "old", 1)[0], out / "model.gguf").outputs[0]
    source = make_set(tiny, tmp_path / "new", 2)
    killed(source[0], out / "model.gguf", 1, "replace")
    with pytest.raises(Exception, match="changed while it was read; try again"):
        convert_gguf(first, tmp_path / "again.gguf", force=True)
    again = convert_gguf(first, tmp_path / "again.gguf", force=True).outputs
    right = convert_gguf(source[0], tmp_path / "right.gguf").outputs
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in right]
