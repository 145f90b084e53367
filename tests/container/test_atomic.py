"""New files appear whole or not at all, whatever happens; tried with real signals and limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_convert import assert_converted, leftovers, split

from lampe_gguf.container import atomic, block_copy, rewrite
from lampe_gguf.container.atomic import NewFiles
from lampe_gguf.convert import convert_gguf as convert
from lampe_gguf.errors import LampeError, UsageError


@pytest.fixture
def plain(tiny: Callable[..., Path]) -> Path:
    return tiny("plain.gguf", lampe=None)


def child(code: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, timeout=60,
    )


# the signal arrives while tensors are copied
INTERRUPTED = """
import os, sys, time
from lampe_gguf.cli import main as cli
from lampe_gguf.container import copying
def copy(*_):
    os.kill(os.getpid(), {number})
    time.sleep(20)
copying.os.copy_file_range = copy
sys.exit(cli.main(["convert", sys.argv[1]]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_nothing_behind(plain: Path, number: int) -> None:
    done = child(INTERRUPTED.format(number=int(number)), plain)
    assert done.returncode == 128 + number, done.stderr
    assert "Traceback" not in done.stderr
    assert leftovers(plain.parent) == {"plain.gguf"}


def test_a_real_limit_on_file_size(plain: Path) -> None:
    code = (
        "import resource, sys\n"
        "from lampe_gguf.cli import main as cli\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "sys.exit(cli.main(['convert', sys.argv[1]]))"
    )
    done = child(code, plain)
    assert done.returncode == 1 and "ulimit -f" in done.stderr
    # a busy machine may have had the time to say how far it was
    said = [line for line in done.stderr.splitlines() if not line.startswith("copying ")]
    assert len(said) == 1
    assert leftovers(plain.parent) == {"plain.gguf"}


def test_memory_does_not_grow_with_the_file(plain: Path) -> None:
    code = (
        "import resource, sys\n"
        "from lampe_gguf import copying\n"
        "from lampe_gguf.convert import convert_gguf as convert\n"
        "del copying.os.copy_file_range\n"  # the worst case: every byte through this process
        "convert(sys.argv[1], force=True)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    small = int(child(code, plain).stdout)
    os.truncate(plain, 300_000_000)
    large = int(child(code, plain).stdout)
    assert plain.with_name("plain.lampe.gguf").stat().st_size > 300_000_000
    # a window of the source, where it can be mapped, counts as the process's
    assert large - small < 8000 + block_copy.WINDOW // 1000  # kB


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_input_as_output_by_another_name(plain: Path, link: Callable[..., None]) -> None:
    original, other = plain.read_bytes(), plain.with_name("other.gguf")
    link(plain, other)
    with pytest.raises(UsageError, match="--force"):
        convert(plain, other)
    assert other.read_bytes() == original
    convert(plain, other, force=True)
    assert plain.read_bytes() == original
    assert_converted(plain, other)


def test_permissions_are_cps(plain: Path) -> None:
    plain.chmod(0o606)
    old = os.umask(0o022)
    try:
        output = convert(plain).outputs[0]
    finally:
        os.umask(old)
    assert output.stat().st_mode & 0o777 == 0o604


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_several_files_come_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    targets = [tmp_path / name for name in "abc"]
    targets[1].write_text("old")
    replace = os.replace

    def fail_once(source: Path, target: Path) -> None:
        if target == targets[broken] and source.read_text() == "new":
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(atomic.os, "replace", fail_once)
    with pytest.raises(LampeError, match="Input/output error"), NewFiles(force=True) as files:
        for target in targets:
            os.write(files.create(target), b"new")
        files.commit()
    assert leftovers(tmp_path) == {"b"} and targets[1].read_text() == "old"
    monkeypatch.undo()
    with NewFiles(force=True) as files:
        for target in targets:
            os.write(files.create(target), b"new")
        files.commit()
    assert leftovers(tmp_path) == {"a", "b", "c"} and targets[1].read_text() == "new"


def test_parts_are_copied_where_they_cannot_be_linked(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = split(plain, folder)

    def cannot(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(atomic.os, "link", cannot)
    outputs = convert(parts[0]).outputs
    for part, output in zip(parts[1:], outputs[1:], strict=True):
        assert output.read_bytes() == part.read_bytes() and not os.path.samefile(part, output)


def test_parts_that_fail_leave_nothing_behind(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = split(plain, folder)
    before = leftovers(folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rewrite, "write_gguf", full)
    with pytest.raises(LampeError, match="disk is full"):
        convert(parts[0])
    assert leftovers(folder) == before


def test_converting_parts_twice_and_in_place(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = split(plain, folder)
    first = parts[0].read_bytes()
    convert(parts[0])
    outputs = convert(parts[0], force=True).outputs
    assert len(leftovers(folder)) == 6
    assert all(os.path.samefile(*pair) for pair in zip(parts[1:], outputs[1:], strict=True))
    monkeypatch.delattr(atomic.os, "link")  # nothing to link or copy here: they are there
    convert(parts[0], parts[0], force=True)
    assert all(os.path.samefile(*pair) for pair in zip(parts[1:], outputs[1:], strict=True))
    assert parts[0].read_bytes() == outputs[0].read_bytes() != first
    assert len(leftovers(folder)) == 6


def test_a_damaged_part_is_noticed(plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = split(plain, folder)
    os.truncate(parts[2], parts[2].stat().st_size - 64)
    before = leftovers(folder)
    with pytest.raises(LampeError, match="00003-of-00003.gguf is cut short"):
        convert(parts[0])
    parts[2].write_bytes(parts[1].read_bytes())
    with pytest.raises(LampeError, match="is not part 3 of 3"):
        convert(parts[0])
    assert leftovers(folder) == before
