"""Standard streams that are missing, closed, full, of another encoding; names that are no text."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import PROGRAM, call

from lampe_gguf.cli import console
from lampe_gguf.cli.progress import Progress
from lampe_gguf.conversation.documents import read_document
from lampe_gguf.errors import LampeError

posix = pytest.mark.skipif(os.name != "posix", reason="shells and devices of Unix")
COMMANDS = {
    "help": ["--help"],
    "convert": ["convert", "{plain}", "{folder}/out.gguf", "--force"],
    "strip": ["strip", "{m}", "{folder}/out.gguf", "--force"],
    "inspect": ["inspect", "{m}"],
    "inspect --json": ["inspect", "{m}", "--json"],
    "ask": ["ask", "{m}", "why?", "--doc", "{b}", "--max-tokens", "2"],
    "doctor": ["doctor"],
    "ppl": ["eval", "ppl", "{m}", "--text", "{b}", "--lengths", "64"],
    "kv": ["eval", "kv", "{m}", "--lengths", "512", "--limit", "1", "--methods", "lampe"],
    "attention": ["attention", "{m}", "--text", "{b}", "--lengths", "64"],
    "bench": ["bench", "{m}", "--lengths", "32", "--rounds", "1", "--decode", "1"],
    "wrong": ["inspect", "{folder}/nosuch"],
    "usage": ["inspect"],
}
EXPECTED = {"wrong": 1, "usage": 2}


@pytest.fixture
def run(tiny: Callable[..., Path], tmp_path: Path) -> Callable[..., Any]:
    """A command of COMMANDS through the shell, with redirections; text with replacements."""
    book = tmp_path / "book.txt"
    book.write_text("It was a dark and stormy night. " * 6, encoding="utf-8")
    places = {"m": tiny("m.gguf"), "plain": tiny("plain.gguf", lampe=None), "b": book,
              "folder": tmp_path}

    def run(name: str, redirection: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        words = [*PROGRAM, *(part.format(**places) for part in COMMANDS[name])]
        return subprocess.run(
            ["sh", "-c", f'"$@" {redirection}', "sh", *words], capture_output=True, text=True,
            errors="replace", timeout=120, env={**os.environ, **env}, stdin=subprocess.DEVNULL,
        )

    return run


@posix
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("redirection", ["<&- 2>&-", "2>/dev/full"])
def test_without_standard_error_a_command_goes_on(
    run: Callable[..., Any], name: str, redirection: str
) -> None:
    done = run(name, redirection)
    assert done.returncode == EXPECTED.get(name, 0)
    assert done.stdout or name in EXPECTED


@posix
@pytest.mark.parametrize("name", COMMANDS)
def test_a_closed_standard_output_is_one_sentence(
    run: Callable[..., Any], name: str, tmp_path: Path
) -> None:
    done = run(name, ">&-")
    assert done.returncode == EXPECTED.get(name, 1), done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    lost = done.stderr.count("error: cannot write to standard output: Bad file descriptor")
    assert lost == (name not in EXPECTED)
    if name in ("convert", "strip"):  # what was asked for is there
        assert (tmp_path / "out.gguf").read_bytes()[:4] == b"GGUF"
    assert run(name, ">&- 2>&-").returncode == EXPECTED.get(name, 1)


@posix
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in EXPECTED])
def test_a_full_standard_output_is_one_sentence(run: Callable[..., Any], name: str) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    done = run(name, ">/dev/full")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: cannot write to standard output: No space left"), done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@posix
@pytest.mark.parametrize("name", ["inspect", "doctor", "help", "ppl"])
def test_a_reader_that_has_gone_needs_no_words(run: Callable[..., Any], name: str) -> None:
    # the pipe's reader ends before the command has begun
    done = run(name)
    process = subprocess.Popen(done.args[4:], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(60) == 141
    assert b"rror" not in said and b"ignored" not in said


@posix
def test_no_message_goes_into_a_users_file(run: Callable[..., Any], tmp_path: Path) -> None:
    assert run("convert").returncode == 0
    expected = (tmp_path / "out.gguf").read_bytes()
    for closed in ("<&- >&- 2>&-", "2>&-", ">&- 2>&-"):
        done = run("convert", closed)
        assert done.returncode == (">&-" in closed.split())
        assert (tmp_path / "out.gguf").read_bytes() == expected


@posix
def test_closed_descriptors_are_taken_first() -> None:
    code = ("import os; from lampe_gguf import console; console.prepare();"
            "fd = os.open(os.devnull, os.O_RDONLY); assert fd > 2, fd;"
            "import sys; print('x', file=sys.stderr); sys.stdin.read(); os._exit(7)")
    for closed in ("2>&-", ">&-", "<&-", "<&- >&- 2>&-"):
        done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-c", code])
        assert done.returncode == 7, closed


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_what_an_encoding_lacks_is_replaced(
    tiny: Callable[..., Path], encoding: str, tmp_path: Path
) -> None:
    path = tiny("m.gguf", name="\u4f60\u597d caf\u00e9")
    book = tmp_path / "\u4f60.txt"
    book.write_text("\u597d " * 20, encoding="utf-8")
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    talk = f"caf\u00e9 \u4f60\n/doc {book}\nAnd?\n/stats\n".encode()
    for arguments in (["inspect", str(path)], ["ask", str(path), "\u4f60?", "--max-tokens", "20"],
                      ["ask", str(path), "--doc", str(book), "?", "--json", "--max-tokens", "20"],
                      ["chat", str(path), "--max-tokens", "9"]):
        done = subprocess.run([*PROGRAM, *arguments], input=talk, capture_output=True, env=env)
        assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
        assert done.stdout
        done.stdout.decode(encoding)


def test_a_chat_whose_output_is_full_goes_on(tiny: Callable[..., Path], tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    saved = tmp_path / "talk.json"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "chat", str(tiny()), "--max-tokens", "3"], stdout=full, text=True,
            stderr=subprocess.PIPE, input=f"one\ntwo\n/save {saved}\n/quit\n",
        )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.count("cannot write to standard output") == 1
    assert len(json.loads(saved.read_text())["messages"]) == 4


def test_bytes_that_are_no_text_on_standard_input(tiny: Callable[..., Path]) -> None:
    asked = subprocess.run(
        [*PROGRAM, "ask", str(tiny()), "--doc", "-", "?", "--max-tokens", "2"],
        input=b"Le caf\xe9 est ferm\xe9 le dimanche et ouvert tous les autres jours.",
        capture_output=True,
    )
    assert asked.returncode == 0, asked.stderr
    assert b"2 bytes of standard input are no UTF-8" in asked.stderr


def test_how_much_of_a_document_may_be_no_text(tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.write_bytes(b"caf\xe9 \xef\xbf\xbd is a word" * 3)
    with pytest.raises(LampeError, match="not UTF-8 text"):
        read_document(str(path))
    found = read_document(str(path), to_ask=True)
    assert found.replaced == 3 and found.text.startswith("caf\ufffd")
    path.write_bytes(b"caf\xe9\xe8")
    with pytest.raises(LampeError, match="not UTF-8 text"):
        read_document(str(path), to_ask=True)


@posix
def test_names_that_are_no_text(tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    model, book = folder + b"/mod\xe8le.gguf", folder + b"/caf\xe9.txt"
    try:
        os.rename(tiny(), model)
    except OSError:
        pytest.skip("this file system takes no such names")
    Path(os.fsdecode(book)).write_text("Kites are red. " * 20)
    out = folder + b"/so\xfbs.gguf"

    def ok(*arguments: str | bytes) -> tuple[str, str]:
        done = subprocess.run([*PROGRAM, *arguments], capture_output=True)
        assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
        return done.stdout.decode("utf-8"), done.stderr.decode("utf-8")

    ok("ask", model, "--doc", book, "--max-tokens", "2", b"Quelle couleur, caf\xe9?")
    ok("ask", model, "--doc", book, "--max-tokens", "2", "--no-lampe", "--json", "?")
    ok("eval", "ppl", model, "--text", book, "--lengths", "64", "--json")
    kv = ("eval", "kv", model, "--methods", "lampe", "--lengths", "512", "--limit", "1")
    ok(*kv, "--resume", folder + b"/j\xe9")
    ok(*kv, "--resume", folder + b"/j\xe9", "--json")
    other = folder + b"/\xe8.gguf"
    os.rename(tiny("wide.gguf", window=256, lampe=None), other)
    long = folder + b"/long-\xe9.txt"
    Path(os.fsdecode(long)).write_text("Kites are red. " * 50)
    ok("calibrate", other, "--text", long, "--text", long, "--max-length", "320",
       "--budget", "60s", "--write", folder + b"/cal\xe9.gguf", "--plot", folder + b"/cal\xe9.png")
    ok("bench", model, "--lengths", "32", "--rounds", "1", "--decode", "1")
    ok("inspect", model)
    ok("attention", model, "--text", book, "--lengths", "64", "--plot", folder + b"/a\xe9$.png")
    said, _ = ok("convert", model, out, "--provenance", b"caf\xe9", "--force", "--json")
    assert json.loads(said)["outputs"] == [str(tmp_path / "so") + "\\xfbs.gguf"]
    assert os.path.exists(out)
    said, _ = ok("strip", out, folder + b"/b\xe0ck.gguf")
    assert said.endswith("b\\xe0ck.gguf\n")
    refused = subprocess.run([*PROGRAM, "ask", model, "--doc", book + b"x", "?"],
                             capture_output=True)
    assert refused.returncode == 1 and b"caf\\xe9.txtx: No such file" in refused.stderr


def test_bytes_that_are_no_text_in_a_models_strings(tiny: Callable[..., Path]) -> None:
    path = tiny(name="NAME")
    path.write_bytes(path.read_bytes().replace(b"NAME", b"N\xe0\xffE"))
    for arguments in (["inspect", path], ["ask", path, "?", "--max-tokens", 2], ["inspect", path,
                      "--json"]):
        done = call(*arguments)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "full")


@pytest.mark.parametrize("stream", ["none", "closed", "full"])
def test_progress_is_silent_where_it_cannot_speak(
    monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    streams = {"none": None, "closed": io.StringIO(), "full": Broken()}
    if stream == "closed":
        streams["closed"].close()  # type: ignore[union-attr]
    monkeypatch.setattr(sys, "stderr", streams[stream])
    with Progress("working", 10) as bar:
        bar.width, bar.next = 3, 0.0
        bar.advance(5)
        bar.relabel("on")
        assert bar.done == 5
    console.say("nobody hears it")
