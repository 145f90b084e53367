"""Files and folders that are not what was meant: each is one sentence, and nothing waits."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lampe_gguf.container.reader import GGUFFile
from lampe_gguf.convert import convert_gguf as convert
from lampe_gguf.errors import LampeError
from lampe_gguf.inspect import inspect_gguf as inspect
from lampe_gguf.strip import strip_gguf as strip


@pytest.fixture
def plain(tiny: Callable[..., Path]) -> Path:
    return tiny("plain.gguf", lampe=None)


def looping(folder: Path) -> Path:
    os.symlink(folder / "two", folder / "one")
    os.symlink(folder / "one", folder / "two")
    return folder / "one"


UNREACHABLE: dict[str, Callable[[Path], Path]] = {
    "below a file": lambda folder: folder / "plain.gguf" / "x.gguf",
    "too long": lambda folder: folder / ("n" * 300),
    "a loop": looping,
    "below a loop": lambda folder: looping(folder) / "x.gguf",
    "no path": lambda folder: folder / "a\0b.gguf",
}


@pytest.mark.parametrize("name", list(UNREACHABLE))
def test_unreachable_paths(plain: Path, name: str) -> None:
    path = UNREACHABLE[name](plain.parent)
    before = sorted(plain.parent.iterdir())
    for use in (convert, inspect, GGUFFile):
        with pytest.raises(LampeError) as caught:
            use(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(LampeError):
        convert(plain, path)
    with pytest.raises(LampeError):
        strip(plain, path)
    with pytest.raises(LampeError):
        strip(convert(plain).outputs[0], path)
    plain.with_name("plain.lampe.gguf").unlink()
    assert sorted(plain.parent.iterdir()) == before


AS_NOBODY = """
import os, sys
from lampe_gguf.cli import main as cli
from lampe_gguf.cli import convert, inspect, strip, calibrate
import lampe_gguf.convert, lampe_gguf.inspect, lampe_gguf.strip, gguf, numpy
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root can be nobody")
@pytest.mark.parametrize("arguments", [
    ("convert", "{closed}/m.gguf"),
    ("convert", "{model}", "{closed}/out.gguf"),
    ("convert", "{model}", "{closed}/folder/"),
    ("convert", "{model}", "{model}.out"),
    ("strip", "{converted}", "{closed}/out.gguf"),
    ("inspect", "{closed}/m.gguf"),
    ("inspect", "{model}", "--plot", "{closed}/p.png"),
    ("inspect", "{model}", "--plot", "{closed}/folder/p.png"),
    ("calibrate", "{model}", "--write", "{closed}/p.gguf"),
    ("calibrate", "{model}", "--report", "{closed}/r.json"),
])
def test_a_folder_that_may_not_be_searched(plain: Path, arguments: tuple[str, ...]) -> None:
    top = next(p for p in plain.parents if p.name.startswith("pytest-of"))
    closed = plain.parent / "closed"
    (closed / "folder").mkdir(parents=True)
    converted = convert(plain).outputs[0]
    modes = {path: path.stat().st_mode & 0o777 for path in (*plain.parents, plain)}
    try:
        for path in (plain.parent, *plain.parent.parents):
            if top in (path, *path.parents):
                path.chmod(0o755)
        closed.chmod(0o700)
        given = [part.format(closed=closed, model=plain, converted=converted) for part in arguments]
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, *given],
                              capture_output=True, text=True, timeout=60)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr and "ermission denied" in done.stderr, done.stderr
    assert sorted(p.name for p in plain.parent.iterdir()) == [
        "closed", "plain.gguf", "plain.lampe.gguf"]


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    code = "from lampe_gguf.cli.main import run; run()"
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.fspath(tmp_path / "socket"))
        for path in (tmp_path / "fifo", tmp_path / "socket", "/dev/zero", tmp_path / "."):
            done = subprocess.run([sys.executable, "-c", code, "convert", os.fspath(path)],
                                  capture_output=True, text=True, timeout=20)
            assert done.returncode in (1, 2), path
            assert "not a regular file" in done.stderr or "is a folder" in done.stderr, done.stderr


def test_closing_twice_leaves_other_files_open(plain: Path) -> None:
    with GGUFFile(plain) as file:
        number = file.fd
        file.close()
        other = os.open(plain, os.O_RDONLY)
        assert other == number  # as the system gives out numbers, and what made this a fault
        file.close()
    assert os.read(other, 4) == b"GGUF"
    os.close(other)
    with pytest.raises(LampeError, match="cannot read"):
        file.value("general.architecture")
