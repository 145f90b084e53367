"""A model converted where there is no pread, and where what is open keeps its name: as on Windows,
with its calls put in the place of ours."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_model import make_tiny_model

from lampe_gguf import convert_gguf, strip_gguf
from lampe_gguf.container import atomic, block_copy, leftovers, positioned
from lampe_gguf.errors import LampeError


def is_open(path: Any) -> bool:
    """Whether this process holds the file behind a name open."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    for name in os.listdir("/proc/self/fd"):
        try:
            other = os.fstat(int(name))
        except OSError:
            continue
        if (other.st_ino, other.st_dev) == (status.st_ino, status.st_dev):
            return True
    return False


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reading at a place, no locks, no names for what is open."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("this system does not say which files are open")
    for name in ("pread", "pwrite", "copy_file_range", "O_DIRECT"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(leftovers, "fcntl", None)
    monkeypatch.setattr(block_copy.sys, "platform", "win32")
    for module in (positioned, atomic):
        monkeypatch.setattr(module, "RENAMES_OPEN_FILES", False)

    def refusing(call: Callable[..., None], checked: int) -> Callable[..., None]:
        def checking(*paths: Any, **options: Any) -> None:
            for path in paths[:checked]:
                if is_open(path):
                    raise PermissionError(errno.EACCES, "Access is denied", str(path))
            call(*paths, **options)

        return checking

    for name, checked in (("replace", 2), ("unlink", 1), ("remove", 1)):
        monkeypatch.setattr(os, name, refusing(getattr(os, name), checked))


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".lampe-gguf")]


def test_a_model_is_converted_and_back(windows: None, tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model.gguf")
    before = Path(model).read_bytes()
    convert_gguf(model, tmp_path / "model.lampe.gguf")
    strip_gguf(tmp_path / "model.lampe.gguf", tmp_path / "back.gguf")
    assert (tmp_path / "back.gguf").read_bytes() == before
    assert not hidden(tmp_path)


def test_an_output_is_replaced(windows: None, tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model.gguf")
    target = tmp_path / "model.lampe.gguf"
    target.write_bytes(b"old")
    convert_gguf(model, target, force=True)
    assert target.read_bytes()[:4] == b"GGUF" and not hidden(tmp_path)


def test_what_someone_holds_open_is_said_and_stays(windows: None, tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model.gguf")
    target = tmp_path / "model.lampe.gguf"
    target.write_bytes(b"old")
    with target.open("rb"), pytest.raises(LampeError, match="a program has it open"):
        convert_gguf(model, target, force=True)
    assert target.read_bytes() == b"old" and not hidden(tmp_path)


def test_several_files_come_together_or_not_at_all(windows: None, tmp_path: Path) -> None:
    names = [tmp_path / "a", tmp_path / "b"]
    for name in names:
        name.write_bytes(b"old")
    with atomic.NewFiles(force=True) as files:
        for name in names:
            os.write(files.create(name), b"new")
        files.commit()
    assert [name.read_bytes() for name in names] == [b"new", b"new"]
    with (names[1].open("rb"), pytest.raises(LampeError, match="a program has it open"),
          atomic.NewFiles(force=True) as files):
        for name in names:
            os.write(files.create(name), b"newer")
        files.commit()
    assert [name.read_bytes() for name in names] == [b"new", b"new"]
    # a second name of what is open stays, as such a system removes none
    assert [(tmp_path / name).samefile(names[1]) for name in hidden(tmp_path)] == [True]


def test_places_are_read_and_written_without_the_systems_help(
    windows: None, tmp_path: Path
) -> None:
    assert not hasattr(os, "pread")
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    try:
        assert positioned.write_at(fd, b"abcdef", 2) == 6
        assert positioned.write_at(fd, memoryview(b"XY"), 3) == 2
        assert positioned.read_at(fd, 4, 2) == b"aXYd"
        assert positioned.read_at(fd, 9, 6) == b"ef" and positioned.read_at(fd, 9, 99) == b""
    finally:
        os.close(fd)
