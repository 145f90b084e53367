"""Hidden files after a kill: the next run removes them, but not those of a living program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_convert import leftovers, split

from lampe_gguf.container import leftovers as module
from lampe_gguf.container.atomic import NewFiles, write_file
from lampe_gguf.huggingface.checkpoint import _folder

# a conversion that stops in the middle, and says so
WAITING = """
import sys, time
from lampe_gguf.cli import main as cli
from lampe_gguf.container import copying
def copy(*_):
    print("here", flush=True)
    time.sleep(60)
copying.os.copy_file_range = copy
sys.exit(cli.main(["convert", sys.argv[1], "--force"]))
"""

HOLDING = """
import os, sys, time
from pathlib import Path
from lampe_gguf.container.leftovers import hidden_folder
with hidden_folder(Path(sys.argv[1])) as place:
    (place / "half.gguf").write_bytes(b"GGUF")
    print("here", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def plain(tiny: Callable[..., Path]) -> Path:
    return tiny("plain.gguf", lampe=None)


def started(code: str, path: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "here\n"
    return child


def hidden(folder: Path) -> set[str]:
    return {name for name in leftovers(folder) if name.startswith(".")}


@pytest.mark.parametrize("parts", [False, True])
def test_after_a_kill_and_not_before(plain: Path, tmp_path: Path, parts: bool) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    if parts:
        path = split(plain, folder)[0]
    else:
        path = Path(os.rename(plain, folder / "plain.gguf") or folder / "plain.gguf")
    before = leftovers(folder)
    child = started(WAITING, path)
    try:
        held = hidden(folder)
        assert len(held) == (3 if parts else 1)  # the parts that are linked are held, too
        write_file(folder / "other", b"a run beside it")
        assert hidden(folder) == held
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert hidden(folder) == held
    write_file(folder / "other", b"the next run", force=True)
    assert leftovers(folder) == before | {"other"}


def test_a_folder_that_is_worked_in(tmp_path: Path) -> None:
    child = started(HOLDING, tmp_path)
    try:
        held = hidden(tmp_path)
        with _folder(tmp_path) as place:
            assert hidden(tmp_path) == held | {place.name}
        assert hidden(tmp_path) == held and len(held) == 1
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert hidden(tmp_path) == held
    write_file(tmp_path / "other", b"the next run")
    assert leftovers(tmp_path) == {"other"}


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    names = {".lampe-gguf-0123.tmp", ".lampe-gguf-0123456789abcdef.tmp.gguf", "x.tmp"}
    for name in names:
        (tmp_path / name).write_bytes(b"")
    os.mkfifo(tmp_path / ".lampe-gguf-0123456789abcdef.tmp")
    write_file(tmp_path / "new", b"")
    assert leftovers(tmp_path) == names | {"new", ".lampe-gguf-0123456789abcdef.tmp"}


@pytest.mark.parametrize("missing", ["module", "locks"])
def test_without_locks_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    if missing == "module":
        monkeypatch.setattr(module, "fcntl", None)
    else:
        def cannot(*_: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(module.fcntl, "flock", cannot)
    left = tmp_path / ".lampe-gguf-0123456789abcdef.tmp"
    left.write_bytes(b"")
    with NewFiles() as files:
        files.create(tmp_path / "a")
        files.commit()
    assert leftovers(tmp_path) == {left.name, "a"}


def test_a_file_removed_before_it_was_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.fcntl.flock
    removed: list[Path] = []

    def late(fd: int, how: int) -> None:
        if not removed:  # another run comes first
            removed.extend(tmp_path.iterdir())
            removed[0].unlink()
        real(fd, how)

    monkeypatch.setattr(module.fcntl, "flock", late)
    with NewFiles() as files:
        os.write(files.create(tmp_path / "a"), b"new")
        files.commit()
    assert removed and (tmp_path / "a").read_bytes() == b"new" and leftovers(tmp_path) == {"a"}
