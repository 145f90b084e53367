"""convert_gguf and strip_gguf as another program calls them: no terminal, no signals."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lampe_gguf import LampeError, LampeLlama, convert_gguf, strip_gguf
from lampe_gguf.cli import progress
from lampe_gguf.container import copying


@pytest.fixture
def plain(tiny: Callable[..., Path]) -> Path:
    return tiny("plain.gguf", lampe=None)


def test_neither_terminal_nor_signals_are_touched(
    plain: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "DELAY", 0.0)  # whoever draws, draws at once
    touched = []
    monkeypatch.setattr(signal, "signal", lambda *what: touched.append(what))
    convert_gguf(plain)
    strip_gguf(plain.with_name("plain.lampe.gguf"), plain.with_name("back.gguf"))
    assert not touched
    assert capfd.readouterr() == ("", "")


def test_without_standard_error(plain: Path) -> None:
    code = ("import sys; sys.stderr = None; from lampe_gguf import convert_gguf\n"
            "print(convert_gguf(sys.argv[1]).outputs[0].name)")
    done = subprocess.run([sys.executable, "-c", code, plain], capture_output=True, text=True)
    assert done.stdout == "plain.lampe.gguf\n", done.stderr


def test_progress_is_told(plain: Path) -> None:
    told: list[tuple[int, int]] = []
    convert_gguf(plain, on_progress=lambda done, total: told.append((done, total)))
    size = plain.with_name("plain.lampe.gguf").stat().st_size
    done = [each for each, _ in told]
    assert done == sorted(done) and 0 < done[0] and {total for _, total in told} == {size}
    assert done[-1] == size
    told.clear()
    strip_gguf(plain.with_name("plain.lampe.gguf"), plain.with_name("back.gguf"),
               on_progress=lambda *what: told.append(what))
    assert told[-1] == (plain.stat().st_size,) * 2


def test_a_long_value_does_not_keep_a_model_from_opening(tiny: Callable[..., Path]) -> None:
    path = tiny("long.gguf", lampe=None, window=256, extra={
        "tokenizer.huggingface.json": "j" * ((1 << 20) + 1)})
    config = convert_gguf(path, context_length=1024).config
    for lampe in ("auto", config):
        with contextlib.closing(LampeLlama(path, lampe=lampe, n_ctx=512)) as llm:
            assert llm.lampe_config is not None and llm.lampe_config.window == 256


def test_a_thread_can_convert_and_its_caller_stop_it(plain: Path) -> None:
    found: list[object] = []

    def work() -> None:
        def give_up(done: int, total: int) -> None:
            raise RuntimeError("no longer wanted")

        try:
            convert_gguf(plain, on_progress=give_up)
        except RuntimeError as error:
            found.append(str(error))
        found.append(sorted(path.name for path in plain.parent.iterdir()))
        found.append(convert_gguf(plain).outputs)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["no longer wanted", ["plain.gguf"], [plain.with_name("plain.lampe.gguf")]]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_that_changes_while_it_is_copied(
    plain: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    # another download of the same model arrives over it
    data = bytearray(plain.read_bytes())
    at = data.index(b"general.name")
    data[at - 8] = 200  # a key's length: the header is no header any more
    copy = copying.copy_range

    def copy_and_change(*what: object) -> None:
        if when == "after":
            copy(*what)  # type: ignore[arg-type]
        with open(plain, "r+b") as file:
            file.write(data)
        if when == "before":
            copy(*what)  # type: ignore[arg-type]

    from lampe_gguf.container import writer as gguf_output

    monkeypatch.setattr(gguf_output, "copy_range", copy_and_change)
    with pytest.raises(LampeError, match="changed while it was read|writes to it"):
        convert_gguf(plain)
    assert [path.name for path in plain.parent.iterdir()] == ["plain.gguf"]


def test_what_was_written_is_read_again(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the file system does not say that the input changed: only the output shows it
    from lampe_gguf.container import reader as gguf_file
    from lampe_gguf.container import writer as gguf_output

    monkeypatch.setattr(gguf_file.GGUFFile, "check_unchanged", lambda self: None)
    write = gguf_output.write_all
    for wrong in (b"GGUX", None):
        def damage(fd: int, data: bytes, offset: int, wrong: bytes | None = wrong) -> None:
            if offset == 0 and wrong:
                data = wrong + data[4:]
            if wrong is None and b"lampe.window" in data:
                data = data[:-1] + b"\x7f"  # another value, and a header that can be read
            write(fd, data, offset)

        monkeypatch.setattr(gguf_output, "write_all", damage)
        with pytest.raises(LampeError, match="is not what its header says"):
            convert_gguf(plain)
        assert [path.name for path in plain.parent.iterdir()] == ["plain.gguf"]
