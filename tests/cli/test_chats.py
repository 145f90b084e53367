"""Chats from the command line: kept through a kill, gone on with, listed, shown, removed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PROGRAM, call, tiny_config

from lampe_gguf.conversation.journal import read_journal

BOOK = "It was a dark and stormy night. " * 8


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAMPE_GGUF_CHATS", str(tmp_path / "chats"))
    return tmp_path / "chats"


@pytest.fixture
def model(tiny: Callable[..., Path]) -> Path:
    return tiny(lampe=tiny_config(context_length=4096))


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(BOOK)
    return path


def only(place: Path) -> Path:
    [path] = place.iterdir()
    return path


def answers(stdout: str) -> list[str]:
    """What was said after each line, of a chat from a pipe."""
    return [part.partition("\n")[2].rpartition("[")[0] for part in stdout.split(" tokens] > ")[1:]]


def test_a_kill_costs_the_answer_under_way_alone(model: Path, book: Path, place: Path) -> None:
    options = ["--max-tokens", "300", "--temperature", "0", "--n-ctx", "2048"]
    lines = ["Why?", "And then?"]
    whole = call("chat", model, "--doc", book, *options, "--no-journal",
                 stdin="\n".join(lines) + "\n")
    assert whole.returncode == 0, whole.stderr
    assert not place.exists()
    process = subprocess.Popen([*PROGRAM, "chat", str(model), "--doc", str(book), *options],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write("\n".join(lines) + "\n")
    process.stdin.flush()
    end = time.monotonic() + 60
    while not place.exists() or '"And then?"' not in "".join(
            path.read_text() for path in place.iterdir() if path.suffix == ".jsonl"):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)
    open_now = call("chats", "--remove", only(place).stem)
    assert open_now.returncode == 1 and "is open in another program" in open_now.stderr
    process.kill()
    process.communicate()
    found = read_journal(only(place))
    assert [turn.line for turn in found.turns] == lines[:1] and found.unsent == lines[1]
    book.unlink()  # the conversation has its text
    again = call("chat", "--resume", "last", stdin="/retry\n")
    assert again.returncode == 0, again.stderr
    assert "going on after 1 turn, the last of them:\n> Why?\n" in again.stdout
    assert "has no answer yet, /retry sends it again:\n> And then?\n" in again.stdout
    assert "of 2,048 tokens" in again.stdout
    assert answers(again.stdout)[0].strip() == answers(whole.stdout)[1].strip() != ""
    found = read_journal(only(place))
    assert [turn.line for turn in found.turns] == lines and found.unsent is None
    assert found.turns[0].documents[0].text == BOOK


def test_a_saved_chat_goes_on_with_another_model(
    model: Path, book: Path, place: Path, tmp_path: Path, tiny: Callable[..., Path]
) -> None:
    saved = tmp_path / "talk.json"
    done = call("chat", model, "--n-ctx", 1024, "--max-tokens", 3, "--seed", 1,
                stdin=f"/doc {book}\nWhy?\n/save {saved}\n")
    assert done.returncode == 0, done.stderr
    assert saved.stat().st_mode & 0o777 == 0o600
    book.write_text("another text")
    other = tiny("other.gguf", name="other", seed=3, lampe=tiny_config(context_length=512))
    model.unlink()
    gone = call("chat", "--resume", saved)
    assert gone.returncode == 1 and "is no longer there; name it: lampe-gguf chat" in gone.stderr
    done = call("chat", other, "--resume", saved, "--temperature", 0, stdin="And?\n")
    assert done.returncode == 0, done.stderr
    assert "was had with tiny (tiny.gguf); other (other.gguf) goes on with it" in done.stderr
    assert "book.txt has changed since; the conversation keeps the text" in done.stderr
    assert "of 512 tokens" in done.stdout  # no more than the other model supports
    chats = [read_journal(path) for path in place.iterdir()]
    [now] = [each for each in chats if len(each.turns) == 2]
    assert now.setting is not None and now.setting.model.name == "other"
    assert (now.setting.temperature, now.setting.max_tokens, now.setting.seed) == (0, 3, 1)
    assert now.turns[0].documents[0].text == BOOK


def test_listed_shown_and_removed(model: Path, book: Path, place: Path) -> None:
    empty = call("chats")
    assert empty.returncode == 0 and "no chat is kept in" in empty.stderr and not empty.stdout
    assert call("chats", "--json").stdout.strip() == "[]"
    for line in ("first \x1b[31m question", "second"):
        call("chat", model, "--doc", book, "--max-tokens", 2, "--seed", 1, stdin=f"{line}\n")
    call("chat", model, stdin="/stats\n")  # nothing was said: nothing is kept
    listed = json.loads(call("chats", "--json").stdout)
    assert [each["first_line"] for each in listed] == ["second", "first \x1b[31m question"]
    assert all((each["turns"], each["documents"], each["model"], each["damage"])
               == (1, [str(book)], "tiny", "") for each in listed)
    table = call("chats").stdout
    assert "\x1b" not in table and "book.txt" in table and len(table.splitlines()) == 3
    ids = [each["id"] for each in listed]
    assert ids[0] in table
    shown = call("chats", "--show", "last").stdout
    assert shown.startswith(f"# {ids[0]}\n") and "## You\n\n*" in shown and "second" in shown
    assert BOOK not in shown and "book.txt, 256 characters" in shown
    whole = json.loads(call("chats", "--show", ids[1], "--json").stdout)
    assert whole["turns"][0]["line"] == "first \x1b[31m question"
    done = call("chats", "--remove", "last")
    assert done.returncode == 2 and "there is no chat last" in done.stderr
    done = call("chats", "--remove", ids[0], "--show", ids[1])
    assert done.returncode == 2
    done = call("chats", "--remove", ids[0])
    assert done.returncode == 0 and only(place).stem == ids[1]
    only(place).write_bytes(b"\xff\n")
    assert "(is damaged)" in call("chats").stdout
    assert call("chats", "--remove", ids[1]).returncode == 0 and not list(place.iterdir())


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["chat"], 2, "Missing argument 'MODEL'"),
    (["chat", "--resume", "nosuch"], 2, "there is neither a file nor a chat nosuch"),
    (["chat", "--resume", "last"], 2, "no chat is kept in"),
    (["chat", "--resume", "{book}"], 1, "is no saved conversation"),
    (["chat", "--resume", "."], 2, "is not a regular file"),
    (["chat", "--resume", "{old}"], 2, "does not say which model it is of; name one"),
    (["chats", "--show", "nosuch"], 2, "there is neither a file nor a chat nosuch"),
])
def test_what_cannot_be_gone_on_with(
    book: Path, place: Path, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    old = tmp_path / "old.json"
    old.write_text('{"messages": []}')
    done = call(*(each.format(book=book, old=old) for each in arguments))
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr
    assert not place.exists()


def test_an_old_file_has_room_for_what_it_holds(model: Path, place: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"messages": [{"role": "user", "content": BOOK},
                                            {"role": "assistant", "content": "Oh."}]}))
    done = call("chat", model, "--resume", old, "--max-tokens", 3, stdin="And?\n/stats\n")
    assert done.returncode == 0 and "of 4,096 tokens" in done.stdout, done.stderr
    assert f"going on after 1 turn, the last of them:\n> {BOOK}\nOh.\n" in done.stdout
    assert len(read_journal(only(place)).turns) == 2


@pytest.mark.skipif(os.name != "posix", reason="limits of Unix")
def test_a_disk_that_takes_no_more_is_said_once(model: Path, book: Path, place: Path) -> None:
    import resource

    done = subprocess.run(
        [*PROGRAM, "chat", str(model), "--max-tokens", "3"], text=True, capture_output=True,
        input=f"one\n/doc {book}\ntwo\nthree\n/quit\n",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)))
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert done.stderr.count("from here on it is not kept") == 1, done.stderr
    assert len(answers(done.stdout)) == 5
    assert [turn.line for turn in read_journal(only(place)).turns] == ["one"]


@pytest.mark.parametrize("started", ["1e300", "NaN", '"x"'])
def test_a_time_that_no_clock_shows_is_damage(
    place: Path, tmp_path: Path, started: str
) -> None:
    head = f'{{"format": "lampe-gguf chat", "version": 1, "started": {started}'
    place.mkdir()
    (place / "a.jsonl").write_text(head + "}\n")
    assert "(is damaged)" in call("chats").stdout
    for option in (["--show", "a"], ["--show", "a", "--json"]):
        done = call("chats", *option)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
        assert "is damaged in line 1; there is nothing before it to go on from" in done.stderr
    saved = tmp_path / "saved.json"
    saved.write_text(head + ', "documents": {}, "turns": [], "pending": [], "unsent": null}')
    done = call("chats", "--show", saved)
    assert done.returncode == 1 and "is no saved conversation" in done.stderr
