"""The commit of several files, interrupted at every line of it and around every system call."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from lampe_gguf.container import atomic, leftovers, record
from lampe_gguf.container.atomic import NewFiles, write_file
from lampe_gguf.errors import LampeError

NAMES = ("a", "b", "c", "d")
OLD = {"b": "old b", "c": "shared", "part": "shared"}
NEW = {"a": "new a", "b": "new b", "c": "shared", "d": "new d", "part": "shared"}
CALLS = ("replace", "link", "unlink", "open", "close", "fsync", "lstat")


def start(folder: Path) -> None:
    """b is replaced; c is a link to the very file that it will be linked to; a and d are new."""
    (folder / "b").write_text("old b")
    (folder / "part").write_text("shared")
    os.link(folder / "part", folder / "c")


def write_all(folder: Path) -> None:
    with NewFiles(force=True) as files:
        for name in NAMES:
            if name != "c" or not files.link(folder / "part", folder / "c"):
                os.write(files.create(folder / name), NEW[name].encode())
        files.commit()


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def folders(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    for number in itertools.count():
        folder = tmp_path / str(number)
        folder.mkdir()
        start(folder)
        yield number, folder


class Stop(BaseException):
    """As KeyboardInterrupt, which would end the tests where one went astray."""


def at_line(number: int) -> Callable[..., Any]:
    """A trace function that raises at the number-th line of these modules, once."""
    ours = {atomic.__file__, leftovers.__file__, record.__file__}
    lines = itertools.count()

    def local(frame: FrameType, event: str, argument: object) -> Any:
        if event == "line" and next(lines) == number:
            raise Stop
        return local

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        return local if frame.f_code.co_filename in ours else None

    return trace


def traced(folder: Path, number: int) -> bool:
    """Whether it was stopped; in a thread, for what a trace function raises stays in CPython."""
    stopped = []

    def work() -> None:
        sys.settrace(at_line(number))
        try:
            write_all(folder)
        except Stop:
            stopped.append(True)
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return bool(stopped)


def test_interrupted_at_every_line(tmp_path: Path) -> None:
    seen = set()
    for number, folder in folders(tmp_path):
        stopped = traced(folder, number)
        found = contents(folder)
        assert found in (OLD, NEW), f"line {number}: {found}"
        seen.add((stopped, found == NEW))
        if not stopped:
            break
    assert number > 100 and seen == {(True, False), (True, True), (False, True)}


def failure() -> OSError:
    return OSError(5, "Input/output error")


# not (True, failure): a call that fails has done nothing
@pytest.mark.parametrize("after, error", [(False, Stop), (True, Stop), (False, failure)])
@pytest.mark.parametrize("call", CALLS)
def test_interrupted_around_every_call(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    after: bool,
    error: Callable[[], BaseException],
) -> None:
    real = getattr(os, call)
    for number, folder in folders(tmp_path):
        calls = itertools.count()

        def interrupted(*given: Any, number: int = number, calls: Any = calls, **more: Any) -> Any:
            now = next(calls) == number
            if now and not after:
                if call == "close":  # which closes, whatever it says
                    real(*given)
                raise error()
            try:
                return real(*given, **more)
            finally:
                if now:
                    raise error()

        with monkeypatch.context() as patch:
            patch.setattr(os, call, interrupted)
            try:
                write_all(folder)
            except (Stop, LampeError):
                stopped = True
            else:
                stopped = False
        found = contents(folder)
        if call == "unlink" and error is failure:
            write_all(folder)  # the next run removes what could not be removed
            found = contents(folder)
        assert found in (OLD, NEW), f"{call} {number}: {found}"
        if next(calls) <= number:
            break
        assert stopped or error is failure
    assert number > 0


def test_the_old_name_is_never_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # what a kill would leave behind, at every call that changes a name
    start(tmp_path)
    for call in ("replace", "link", "unlink", "rename", "symlink"):
        real = getattr(os, call)

        def look(*given: Any, real: Any = real, **more: Any) -> None:
            assert (tmp_path / "b").read_text() in ("old b", "new b")
            real(*given, **more)
            assert (tmp_path / "b").read_text() in ("old b", "new b")

        monkeypatch.setattr(os, call, look)
    write_all(tmp_path)
    assert contents(tmp_path) == NEW


@pytest.mark.parametrize("stops", [False, True])
def test_a_file_system_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    for name in "abc":
        (tmp_path / name).write_text(f"old {name}")
    (tmp_path / "b").unlink()
    os.symlink("a", tmp_path / "b")

    def cannot(*_: Any, **more: Any) -> None:
        raise OSError(95, "Operation not supported")

    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if stops and Path(target).name == "c" and Path(source).read_text() == "new":
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "link", cannot)
    monkeypatch.setattr(os, "replace", replace)
    try:
        with NewFiles(force=True) as files:
            for name in "abc":
                os.write(files.create(tmp_path / name), b"new")
            files.commit()
    except LampeError:
        assert stops
        assert contents(tmp_path) == {"a": "old a", "b": "old a", "c": "old c"}
        assert os.readlink(tmp_path / "b") == "a"
    else:
        assert not stops
        assert contents(tmp_path) == dict.fromkeys("abc", "new")


def test_an_old_file_that_cannot_come_back_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (tmp_path / name).write_text(f"old {name}")
    real = os.replace
    calls = itertools.count()

    def replace(source: Path, target: Path) -> None:
        if next(calls) > 0:
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(LampeError, match="cannot put the old .* back") as caught:
        with NewFiles(force=True) as files:
            for name in "ab":
                os.write(files.create(tmp_path / name), b"new")
            files.commit()
    kept = next(path for path in tmp_path.iterdir() if path.suffix == ".tmp")
    assert os.fspath(kept) in str(caught.value) and kept.read_text() == "old a"
    monkeypatch.undo()
    write_file(tmp_path / "other", b"the next run")
    assert kept.read_text() == "old a"
    os.replace(kept, tmp_path / "a")
    write_file(tmp_path / "other", b"and one more", force=True)
    assert contents(tmp_path) == {"a": "old a", "b": "old b", "other": "and one more"}
