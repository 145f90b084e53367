"""Text of a file is shown in one line, escaped and shortened; a model's answer to be seen."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PROGRAM, call, tiny_config
from hypothesis import given
from hypothesis import strategies as st

from lampe_gguf.shown import json_text, shown, visible

HOSTILE = {
    "title": "\x1b]0;owned\x07x", "colour": "\x1b[31mred", "c1": "\x9b31mred", "bell": "\x07",
    "line": "good\nfake line", "return": "x\rfake", "bidi": "\u202egnp.exe", "isolate": "\u2066x",
    "separator": "a\u2028b", "delete": "a\x7f\x08b", "long": "A" * 300_000,
}
FORBIDDEN = [c.encode() for c in "\x1b\x07\r\x7f\x08\x9b\u202e\u2066\u2028"]


def check(done: subprocess.CompletedProcess[bytes]) -> None:
    said = done.stdout + done.stderr
    assert b"Traceback" not in said
    assert not [each for each in FORBIDDEN if each in said]
    assert not [line for line in said.split(b"\n") if line.startswith(b"fake")]
    assert len(said) < 8000, f"{len(said)} bytes"


@given(st.text() | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_one_printable_line_that_can_be_written(text: str) -> None:
    line = shown(text)
    assert line.isprintable() and line.encode("utf-8", "strict") is not None
    assert not text.isprintable() or len(text) > 200 or line == text


def test_what_is_shown_says_what_it_was() -> None:
    assert shown("\x1b[0m\n\u202e\x9b") == "\\x1b[0m\\n\\u202e\\x9b"
    assert shown(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    assert shown("caf\u00e9 \u4f60") == "caf\u00e9 \u4f60"
    assert shown("a\nb", keep="\n") == "a\nb"
    assert shown("x" * 200) == "x" * 200
    long = shown("begin" + "x" * 300_000 + "end")
    assert long.startswith("begin") and long.endswith("end") and len(long) < 250
    assert "[299,808 characters left out]" in long


def test_an_answer_keeps_its_lines_and_letters() -> None:
    assert visible("a\tb\nc\r\nd \u4f60\u200d") == "a\tb\nc\nd \u4f60\u200d"
    assert visible("\x1b[2J\r\x9b") == "\\x1b[2J\\r\\x9b"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda each:
       st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3)))
def test_json_is_what_every_parser_takes(value: object) -> None:
    text = json_text(value)
    assert text.isascii() and json.loads(text) == value


def test_json_holds_no_half_characters() -> None:
    assert json.loads(json_text({"p": os.fsdecode(b"\xe9\xff/\\x")})) == {"p": "\\xe9\\xff/\\x"}
    assert json.loads(json_text("\U0001f642\u4f60")) == "\U0001f642\u4f60"


@pytest.mark.parametrize("kind", HOSTILE)
def test_names_of_a_file_reach_the_terminal_tamed(
    tiny: Callable[..., Path], kind: str, tmp_path: Path
) -> None:
    text = HOSTILE[kind]
    path = tiny(name=text, lampe=None, extra={f"x.{text[:200]}": "y"})
    for arguments in (["inspect"], ["convert", "--force"], ["ask", "--max-tokens", "2", "?"]):
        done = subprocess.run([*PROGRAM, arguments[0], path, *arguments[1:]], capture_output=True)
        assert done.returncode == 0, done.stderr
        if arguments[0] == "ask":  # its answer goes to a pipe as it is
            done.stdout = b""
        check(done)


@pytest.mark.parametrize("kind", HOSTILE)
def test_errors_about_a_file_are_tamed(tiny: Callable[..., Path], kind: str) -> None:
    text = HOSTILE[kind]
    template = "{{ raise_exception(" + json.dumps(text) + ") }}"
    for path, arguments in (
        (tiny("t.gguf", chat_template=template), ["ask", "?"]),
        (tiny("a.gguf", extra={"general.architecture": text}), ["inspect"]),
        (tiny("p.gguf", lampe={"version": 1, "method": text, "provenance": text}), ["inspect"]),
        (tiny("p.gguf", lampe={"version": 1, "method": text}), ["ask", "?"]),
        (tiny("p.gguf", lampe=None), ["inspect", text[:90]]),
        (tiny("p.gguf", lampe=None), ["ask", "--doc", text[:90], "?"]),
        (tiny("p.gguf", lampe=None), ["eval", "ppl", "--text", "x", "--lengths", text[:90]]),
        (tiny("p.gguf", lampe=None), ["inspect", text[:90], text[:90]]),
    ):
        check(subprocess.run([*PROGRAM, arguments[0], path, *arguments[1:]], capture_output=True))


@pytest.mark.parametrize("kind", HOSTILE)
def test_where_values_come_from_is_tamed(
    tiny: Callable[..., Path], kind: str, tmp_path: Path
) -> None:
    path = tiny(lampe=tiny_config(provenance=HOSTILE[kind][:400]))
    book = tmp_path / "b.txt"
    book.write_text("It was a dark and stormy night. " * 6)
    words = ["eval", "ppl", path, "--text", book, "--lengths", "64"]
    done = subprocess.run([*PROGRAM, *words], capture_output=True)
    assert done.returncode == 0 and b"provenance=" in done.stdout
    check(done)


@pytest.mark.parametrize("command", [["inspect", "x"], ["inspect", "x", "y"], ["ask"]])
def test_what_was_typed_wrong_is_shown_in_one_line(command: list[str]) -> None:
    typed = b"--a\nfake\x1b[31mred\xff"
    done = subprocess.run([*PROGRAM, *command, typed, b"\n" + typed[2:]], capture_output=True)
    assert done.returncode == 2
    check(done)
    assert len(done.stderr.splitlines()) == 4, done.stderr
    assert b"\xff" not in done.stderr and b"\\xff" in done.stderr and b"udc" not in done.stderr


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if kind != "long"])
def test_paths_are_tamed(tiny: Callable[..., Path], kind: str, tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE[kind].replace("/", "")
    folder.mkdir()
    path = tiny(f"{folder.name}/m.gguf", lampe=None)
    book = folder / "b.txt"
    book.write_text("words " * 9)
    for arguments in (["convert", path, folder / "o.gguf"], ["strip", path, folder / "s.gguf"],
                      ["convert", path, folder / "o.gguf"], ["inspect", folder / "no.gguf"],
                      ["eval", "kv", path, "--lengths", "64", "--resume", folder]):
        check(subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True))
    talk = f"/doc {book}\n/stats\n/doc {folder}\n/save {book}\n/{HOSTILE[kind]}\n/quit\n"
    chat = call("chat", path, stdin=talk)
    assert chat.returncode == 0
    # what a pipe typed is echoed; the rest is the program's own
    check(subprocess.CompletedProcess([], 0, b"", chat.stderr.encode()))


@pytest.mark.skipif(os.name != "posix", reason="terminals of Unix")
@pytest.mark.parametrize("command", ["ask", "chat"])
def test_an_answer_on_a_terminal_shows_its_control_characters(
    tiny: Callable[..., Path], command: str
) -> None:
    import pty
    import termios

    path = tiny(lampe=tiny_config(context_length=4096))
    options = ["--max-tokens", "1500", "--temperature", "9", "--seed", "3"]
    # a random model says random bytes: two in three tokens are one
    words = [*PROGRAM, command, path, *options, *["?"] * (command == "ask")]
    ours, theirs = pty.openpty()
    modes = termios.tcgetattr(theirs)
    modes[1] &= ~termios.OPOST  # a line's end as it was written
    termios.tcsetattr(theirs, termios.TCSANOW, modes)
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=theirs,
                               stderr=subprocess.DEVNULL)
    os.close(theirs)
    assert process.stdin is not None
    process.stdin.write(b"?\n" if command == "chat" else b"")
    process.stdin.close()
    said = b""
    try:
        while piece := os.read(ours, 65536):
            said += piece
    except OSError:  # how Linux says that nobody is at the other end
        pass
    os.close(ours)
    assert process.wait(60) == 0
    text = said.decode("utf-8")
    controls = {c for c in text if not c.isprintable() and c not in "\t\n"}
    assert not {c for c in controls if ord(c) < 32 or 127 <= ord(c) < 160}
    assert "\\x1b" in text or "\\x07" in text or "\\x0" in text
