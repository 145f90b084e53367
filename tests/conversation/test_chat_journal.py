"""What is kept of a chat is what was said, whatever ends the program or changes meanwhile."""

from __future__ import annotations

import errno
import json
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_config

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.conversation import journal as journals
from lampe_gguf.conversation import shelf
from lampe_gguf.conversation.chat import Chat
from lampe_gguf.conversation.documents import Document, read_document
from lampe_gguf.conversation.journal import Journal, read_journal
from lampe_gguf.conversation.kept import Conversation
from lampe_gguf.conversation.setting import Model, Setting
from lampe_gguf.conversation.turn import Turn
from lampe_gguf.errors import LampeError, UsageError

Tiny = Callable[..., Path]
SETTING = Setting(Model("/m.gguf", "m", "llama", "f"), {"window": 32}, 512, 256, 0.2, None)
BOOK = Document("book", "It was a dark\nand stormy night. \u4f60\u2028\udce9", 1)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAMPE_GGUF_CHATS", str(tmp_path / "data" / "chats"))
    return tmp_path / "data" / "chats"


def state(talk: Any) -> tuple[object, ...]:
    return list(talk.turns), list(talk.pending), talk.unsent


def only(place: Path) -> Path:
    [path] = place.iterdir()
    return path


def talk_of(n: int) -> Conversation:
    return Conversation([Turn((BOOK,) * (i == 0), f"line {i}", f"answer {i}") for i in range(n)])


def test_the_file_says_what_the_chat_is_whatever_happens_to_it(place: Path) -> None:
    """Random commands, each followed by a look at the file, and sometimes by another program."""
    dice = random.Random(1)
    talk = Conversation()
    journal = Journal(place)
    documents = [BOOK, Document("other", BOOK.text), Document("long", "x" * 5000)]
    written_anew = 0
    for step in range(300):
        match dice.randrange(8):
            case 0 | 1:
                talk.unsent = f"line {step}"
            case 2 | 3 if talk.unsent is not None:
                talk.turns.append(Turn(tuple(talk.pending), talk.unsent, f"answer {step}\n"))
                talk.pending, talk.unsent = [], None
            case 4:
                talk.pending.append(dice.choice(documents))
            case 5 if dice.random() < 0.3:
                del talk.turns[:1]
            case 6 if dice.random() < 0.3:
                talk.turns, talk.pending = [], []
            case 7 if dice.random() < 0.3:
                talk.unsent = None
        before = only(place).stat().st_ino if place.exists() and any(place.iterdir()) else 0
        journal.update(talk, SETTING)
        if state(talk) == ([], [], None):
            assert not place.exists() or not list(place.iterdir())
            continue
        written_anew += only(place).stat().st_ino != before
        assert state(read_journal(only(place))) == state(talk), step
        data = only(place).read_bytes()
        used = {one.text for one in talk.pending} | {
            one.text for turn in talk.turns for one in turn.documents}
        for text in {each.text for each in documents}:  # once, and none that was forgotten
            assert data.count(json.dumps(text).encode()) == (text in used)
        if dice.random() < 0.2:
            journal.close()
            journal, found = Journal.resume(only(place))
            assert state(found) == state(talk)
    assert 5 < written_anew < 120  # most of the time, a line or two are appended


def test_a_line_is_there_before_its_answer_and_is_synced(
    place: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = Chat(LampeLlama(tiny()), max_tokens=4, temperature=0.0)
    chat.keep()
    assert not place.exists()  # nothing was said yet
    synced: list[int] = []
    own = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino) or own(fd))
    while_answering: list[Conversation] = []
    chat.show = lambda text: while_answering.append(read_journal(only(place)))
    chat.answer("Why?")
    assert while_answering[0].unsent == "Why?" and not while_answering[0].turns
    assert synced.count(only(place).stat().st_ino) == 2
    assert [turn.line for turn in read_journal(only(place)).turns] == ["Why?"]
    assert stat.S_IMODE(only(place).stat().st_mode) == 0o600
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_commands_are_reflected(
    place: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("The kite was red.")
    chat = Chat(LampeLlama(tiny(lampe=tiny_config(context_length=4096)), n_ctx=512), max_tokens=4,
                temperature=0.0)
    chat.keep()
    doc, full = "/doc book.txt", []
    for line in (doc, "one", "two", "three", "/drop", "/drop doc", doc, "/drop doc", doc, "x" * 410,
                 "/drop", "/retry", "/reset", "five"):
        try:
            chat.handle(line)
        except LampeError as error:
            full.append((line[0], str(error).partition(":")[0]))
        found = [state(read_journal(each)) for each in place.iterdir()]
        assert found == ([state(chat)] if state(chat) != ([], [], None) else []), line
    assert full == [("x", "the context is full")]
    assert "The kite" not in only(place).read_text() and "three" not in only(place).read_text()


def test_what_cuts_off_the_last_line_costs_it_alone(place: Path) -> None:
    journal = Journal(place)
    talk = talk_of(3)
    journal.update(talk, SETTING)
    talk.unsent = "the next"
    journal.update(talk, SETTING)
    journal.close()
    data = only(place).read_bytes()
    start = data.rindex(b"\n", 0, -1) + 1
    for cut in range(start + 1, len(data)):
        only(place).write_bytes(data[:cut])
        found = read_journal(only(place))
        assert state(found) == (talk.turns, [], None)
        assert "cut off" in found.notes[0] and len(found.notes) == 1
    only(place).write_bytes(data[:start] + b"\0" * 4000 + b"\n")  # as a power failure may leave it
    journal, found = Journal.resume(only(place))
    assert state(found) == (talk.turns, [], None) and "cut off" in found.notes[0]
    found.unsent = "no"
    journal.update(found, SETTING)
    found = read_journal(only(place))
    assert found.unsent == "no" and not found.notes
    assert only(place).read_bytes().startswith(data[:start])


@pytest.mark.parametrize("line", range(1, 8))
def test_damage_in_the_middle_is_said_and_nothing_is_lost_by_it(place: Path, line: int) -> None:
    journal = Journal(place)
    journal.update(talk_of(3), SETTING)
    journal.close()
    lines = only(place).read_bytes().split(b"\n")
    lines[line - 1] = lines[line - 1].replace(b"e", b"\xff", 1)
    data = b"\n".join(lines)
    only(place).write_bytes(data)
    for look in (read_journal, Journal.resume):
        with pytest.raises(LampeError, match=f"is damaged in line {line};"):
            look(only(place))
    assert only(place).read_bytes() == data
    assert [each.damage for each in shelf.entries()] == ["is damaged"] or line == 3


def test_a_text_that_is_not_the_one_it_was_is_damage(place: Path) -> None:
    journal = Journal(place)
    journal.update(talk_of(1), SETTING)
    only(place).write_bytes(only(place).read_bytes().replace(b"stormy", b"sunny!"))
    with pytest.raises(LampeError, match="is damaged in line 3"):
        read_journal(only(place))


def test_two_chats_at_once_have_journals_of_their_own(place: Path) -> None:
    one, other = Journal(place), Journal(place)
    one.update(talk_of(1), SETTING)
    other.update(talk_of(2), SETTING)
    assert sorted(len(read_journal(path).turns) for path in place.iterdir()) == [1, 2]
    for look in (Journal.resume, lambda path: shelf.remove(path.stem)):
        with pytest.raises(LampeError, match="is open in another program"):
            look(place / f"{one.id}.jsonl")
    one.update(talk_of(0), SETTING)  # nothing is left of it
    one.update(talk_of(3), SETTING)
    with pytest.raises(LampeError, match="is open in another program"):
        Journal.resume(place / f"{one.id}.jsonl")
    one.close()
    assert len(Journal.resume(place / f"{one.id}.jsonl")[1].turns) == 3
    shelf.remove(one.id)
    assert only(place).stem == other.id


def test_a_full_disk_is_said_once_and_the_chat_goes_on(
    place: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    chat = Chat(LampeLlama(tiny()), max_tokens=4, temperature=0.0)
    chat.keep(said.append)
    chat.answer("one")
    whole = only(place).read_bytes()
    own = journals.write_all

    def full(fd: int, data: bytes, offset: int) -> None:
        own(fd, data[: len(data) // 2], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journals, "write_all", full)
    chat.answer("two")
    chat.answer("three")
    assert len(said) == 1 and "No space left" in said[0] and "/save" in said[0]
    assert only(place).read_bytes() == whole  # and no hidden file beside it
    monkeypatch.undo()
    os.environ["LAMPE_GGUF_CHATS"] = str(place)
    chat.answer("four")
    assert len(said) == 2 and "is kept again" in said[1]
    assert state(read_journal(only(place))) == state(chat)


def test_a_folder_that_cannot_be_made_is_said_once(tiny: Tiny, tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "data").write_text("no folder")
    chat = Chat(LampeLlama(tiny()), max_tokens=4, temperature=0.0)
    chat.keep(said.append)
    chat.answer("one")
    chat.answer("two")
    assert len(said) == 1 and "it is not kept" in said[0] and len(chat.turns) == 2


@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"temperature": 1.5, "seed": 7}])
@pytest.mark.parametrize("way", ["journal", "file"])
def test_a_chat_that_was_interrupted_says_what_it_would_have_said(
    tiny: Tiny, tmp_path: Path, sampling: dict[str, Any], way: str
) -> None:
    path = tiny(lampe=tiny_config(context_length=4096))
    lines = ["Why was it dark?", "And then?", "Go on."]
    document = Document("book", "It was a dark and stormy night. " * 20)
    with LampeLlama(path, n_ctx=2048) as llm:
        whole = Chat(llm, max_tokens=24, **sampling, pending=[document])
        answers = [whole.answer(line) for line in lines]
    with LampeLlama(path, n_ctx=2048) as llm:
        chat = Chat(llm, max_tokens=24, **sampling, pending=[document])
        chat.keep()
        first = [chat.answer(line) for line in lines[:2]]
        chat.save(tmp_path / "talk.json")
        assert chat.journal is not None
        name = chat.journal.id
        chat.journal.close()
    with LampeLlama(path, n_ctx=2048) as llm:
        source = name if way == "journal" else tmp_path / "talk.json"
        again = Chat.resume(llm, source, keep=True)
        assert again.messages == chat.messages and again.max_tokens == 24
        assert [*first, again.answer(lines[2])] == answers
        assert again.used == whole.used
    assert len(set(answers)) == 3
    kept = sorted(len(each.turns) for each in map(read_journal, shelf.folder().iterdir()))
    assert kept == ([3] if way == "journal" else [2, 3])
    assert len(shelf.read(tmp_path / "talk.json").turns) == 2  # the file stays as it was


def test_what_is_saved_holds_all_of_it(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    with LampeLlama(tiny()) as llm:
        chat = Chat(llm, max_tokens=5, temperature=0.5, seed=3, pending=[BOOK], unsent="what?")
        chat.turns.append(Turn((BOOK,), "line \udce9", "answer"))
        chat.save(path)
    chat.save(path)  # what was known of the model is kept where it is closed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    value = json.loads(path.read_text(encoding="utf-8"))
    assert value["format"] == "lampe-gguf chat" and value["version"] == 1
    assert value["sampling"] == {"max_tokens": 5, "temperature": 0.5, "seed": 3}
    assert value["values"]["local_window"] == 8 and value["model"]["name"] == "tiny"
    assert len(value["documents"]) == 1 and value["messages"] == chat.messages
    assert state(shelf.read(path)) == state(chat)
    value["more"] = value["turns"][0]["documents"][0]["pages"] = [1, 2]  # as a later one may write
    path.write_text(json.dumps(value))
    assert state(shelf.read(path)) == state(chat)
    value["version"] = 2
    path.write_text(json.dumps(value))
    with pytest.raises(LampeError, match="a later lampe-gguf"):
        shelf.read(path)


def test_messages_alone_are_read_too(tmp_path: Path, tiny: Tiny) -> None:
    path = tmp_path / "old.json"
    said = [{"role": role, "content": f"{role} {i}"} for i in range(2)
            for role in ("user", "assistant")]
    path.write_text(json.dumps({"messages": [*said, {"role": "user", "content": "and?"}]}))
    with LampeLlama(tiny()) as llm:
        chat = Chat.resume(llm, path)
    assert chat.messages == said and chat.unsent == "and?" and chat.max_tokens == 256


@pytest.mark.parametrize("text", [
    "", "{", "[]", "3", "null", '"format"', '{"messages": 3}', "[" * 100_000, "\0", '{"format": 1}',
    '{"messages": [{"role": "assistant", "content": "a"}]}', '{"messages": [{"role": "user"}]}',
    '{"messages": [{"role": "user", "content": 3}]}',
    '{"format": "lampe-gguf chat", "version": 1, "documents": {}, "turns": [{"line": "a"}]}',
    '{"format": "lampe-gguf chat", "version": 1, "documents": {}, "pending": [], "unsent": null, '
    '"turns": [{"line": "a", "answer": "b", "documents": [{"name": "x", "sha256": "0"}]}]}',
])
def test_what_is_no_conversation_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "talk.json"
    path.write_text(text)
    with pytest.raises(LampeError) as caught:
        shelf.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_document_that_changed_is_said_and_the_text_stays(tiny: Tiny, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("same.txt", "changed.txt", "gone.txt", "bad.txt")]
    for path in paths:
        path.write_text(f"The text of {path.name}.")
    saved = tmp_path / "talk.json"
    with LampeLlama(tiny(), n_ctx=512) as llm:
        chat = Chat(llm, pending=[read_document(str(path)) for path in paths])
        chat.save(saved)
        paths[0].write_text("The text of same.txt.")
        paths[1].write_text("Another one.")
        paths[2].unlink()
        paths[3].write_bytes(b"\0\0")
        notes: list[str] = []
        again = Chat.resume(llm, saved, on_note=notes.append)
    assert again.pending == chat.pending
    assert [note.split(" has changed")[0] for note in notes] == [str(paths[1]), str(paths[3])]


def test_another_model_and_other_values_are_said(tiny: Tiny, tmp_path: Path) -> None:
    saved = tmp_path / "talk.json"

    def notes(llm: LampeLlama) -> str:
        said: list[str] = []
        with llm:
            Chat.resume(llm, saved, on_note=said.append)
        return " / ".join(said)

    with LampeLlama(tiny("a.gguf")) as llm:
        Chat(llm, turns=[Turn((), "a", "b")]).save(saved)
    plain = tiny("plain.gguf", lampe=None)
    # conversion changes no weight: the model is the same, wherever it lies
    assert notes(LampeLlama(plain, lampe=tiny_config())) == ""
    assert "with LaMPE and goes on with plain RoPE" in notes(LampeLlama(plain))
    other = notes(LampeLlama(plain, lampe=tiny_config(local_window=7)))
    assert other.endswith("so far: local_window was 8 and is 7")
    other = notes(LampeLlama(tiny("b.gguf", name="other", seed=1)))
    assert other == "this conversation was had with tiny (a.gguf); other (b.gguf) goes on with it"


def test_a_chat_is_found_by_its_id_or_the_beginning_of_it(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no chat is kept"):
        shelf.find("last")
    place.mkdir(parents=True)
    for name in ("20260101-000000-aaaaaa", "20260101-000001-bbbbbb"):
        (place / f"{name}.jsonl").touch()
    os.utime(place / "20260101-000000-aaaaaa.jsonl", (2e9, 2e9))
    assert shelf.find("last").stem == shelf.find("20260101-000000").stem == "20260101-000000-aaaaaa"
    with pytest.raises(UsageError, match="2 chats begin with 2026"):
        shelf.find("2026")
    for name in ("", "nosuch"):
        with pytest.raises(UsageError, match="neither a file nor a chat"):
            shelf.find(name)
    assert shelf.find(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(("platform", "env", "where"), [
    ("linux", {}, "~/.local/share/lampe-gguf/chats"),
    ("linux", {"XDG_DATA_HOME": "/d"}, "/d/lampe-gguf/chats"),
    ("linux", {"XDG_DATA_HOME": "d"}, "~/.local/share/lampe-gguf/chats"),
    ("darwin", {"XDG_DATA_HOME": "/d"}, "~/Library/Application Support/lampe-gguf/chats"),
    ("win32", {"LOCALAPPDATA": "/l"}, "/l/lampe-gguf/chats"),
    ("win32", {"LAMPE_GGUF_CHATS": "/c"}, "/c"),
])
def test_where_chats_lie(
    monkeypatch: pytest.MonkeyPatch, platform: str, env: dict[str, str], where: str
) -> None:
    for name in ("LAMPE_GGUF_CHATS", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", platform)
    assert shelf.folder() == Path(os.path.expanduser(where))
