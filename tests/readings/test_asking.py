"""ask, chat and read: the same answers, sooner, and what the commands say."""

from __future__ import annotations

import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from reading_models import gemma, long_config

from lampe_gguf import Chat, Document, LampeLlama, Readings, ask
from lampe_gguf.cli import main as cli
from lampe_gguf.conversation.prefix import ends
from lampe_gguf.conversation.prompt import chat_tokens
from lampe_gguf.readings import limit

Tiny = Callable[..., Path]
BOOK = Document("the book", "It was a dark and stormy night. " * 40)
OTHER = Document("the other", "Call me something else, said the whale. " * 30)


@pytest.fixture
def kept(tmp_path: Path) -> Readings:
    said: list[str] = []
    kept = Readings(tmp_path / "kept", 10**9, on_note=said.append)
    kept.said = said  # type: ignore[attr-defined]
    return kept


def test_the_second_question_reads_the_question_alone(tiny: Tiny, kept: Readings) -> None:
    path = tiny(lampe=long_config())
    options = {"max_tokens": 8, "temperature": 0.0}
    first = ask(path, "Who?", BOOK, readings=kept, **options)
    assert first.kept_tokens == 0 and len(kept.entries()) == 1
    read: list[int] = []
    again = ask(path, "Who?", BOOK, readings=kept, on_progress=lambda done, total:
                read.append(total), **options)
    assert again.text == first.text and again.prompt_tokens == first.prompt_tokens
    assert again.kept_tokens > 1300 and max(read) == again.prompt_tokens - again.kept_tokens < 40
    other = ask(path, "What else, 1?", BOOK, readings=kept, **options)
    assert other.kept_tokens == again.kept_tokens and len(kept.entries()) == 1
    assert ask(path, "Who?", BOOK, **options).kept_tokens == 0  # a library writes nothing by itself
    assert ask(path, "Who?", OTHER, readings=kept, **options).kept_tokens == 0
    assert [each.documents for each in kept.entries()] == [("the other",), ("the book",)]
    assert kept.said == []  # type: ignore[attr-defined]


def test_books_in_the_same_order_share_what_they_can(tiny: Tiny, kept: Readings) -> None:
    path = tiny(lampe=long_config())
    ask(path, "Who?", [BOOK, OTHER], max_tokens=1, readings=kept)
    both = ask(path, "Why?", [BOOK, OTHER], max_tokens=1, readings=kept)
    first = ask(path, "Why?", [BOOK, Document("x", "y " * 600)], max_tokens=1, readings=kept)
    assert both.kept_tokens > 2500 and 1300 < first.kept_tokens < 1400
    assert ask(path, "Why?", [OTHER, BOOK], max_tokens=1, readings=kept).kept_tokens == 0


@pytest.mark.parametrize("kind", ["gemma3"])
def test_where_a_window_slides_each_document_is_kept(
    tiny: Tiny, kept: Readings, kind: str
) -> None:
    path = gemma(tiny, lampe=long_config())
    options = {"max_tokens": 8, "temperature": 0.0}
    first = ask(path, "Who?", [BOOK, OTHER], readings=kept, **options)
    assert [each.documents for each in kept.entries()] == [("the book", "the other"), ("the book",)]
    again = ask(path, "Who?", [BOOK, OTHER], readings=kept, **options)
    assert again.kept_tokens > 2500 and again.text == first.text
    part = ask(path, "Who?", [BOOK, Document("x", "y " * 600)], readings=kept, **options)
    assert 1300 < part.kept_tokens < 1400
    plain = ask(path, "Who?", [BOOK, Document("x", "y " * 600)], **options)
    assert part.text == plain.text
    kept.remove("all")
    ask(path, "Who?", [Document("a", "Short."), BOOK], readings=kept, **options)
    assert [each.documents for each in kept.entries()] == [("a", "the book")]


@pytest.mark.parametrize("template", [
    None, "{% for m in messages %}[{{ m['content'] | trim }}]{% endfor %}>",
    "{% for m in messages %}{{ m['content'] | length }}: {{ m['content'] }}{% endfor %}",
])
def test_a_state_ends_where_another_question_begins(tiny: Tiny, template: str | None) -> None:
    path = tiny(chat_template=template, lampe=long_config())
    llm = LampeLlama(path, n_ctx=2048)
    for question in ("What?", "A", "1, 2, 3", "Zoë, who?", "\n\nwhat", ""):
        from lampe_gguf.conversation.documents import as_message

        messages = [{"role": "user", "content": as_message([BOOK], question)}]
        prompt = chat_tokens(llm._model, messages)
        [(number, end)] = ends(llm, messages, [BOOK], prompt)
        text = llm.detokenize(prompt[:end], special=True).decode()
        if template is not None and "length" in template:
            assert end < 10  # the first tokens depend on all of it: there is nothing to keep
        else:
            assert number == 1 and text.rstrip().endswith("stormy night.")
        assert question.strip()[:3] not in text[-3:] or not question.strip()


def test_what_another_program_has_kept_meanwhile_is_not_kept_again(
    tiny: Tiny, kept: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny(lampe=long_config())
    ask(path, "Who?", BOOK, max_tokens=1, readings=kept)
    before = kept.entries()
    monkeypatch.setattr(Readings, "load", lambda *_: 0)  # it was not there yet
    again = ask(path, "Who?", BOOK, max_tokens=1, readings=kept)
    assert again.kept_tokens == 0 and [each.id for each in kept.entries()] == [before[0].id]


def test_short_documents_are_not_worth_an_entry(tiny: Tiny, kept: Readings) -> None:
    path = tiny(lampe=long_config())
    ask(path, "Who?", "A short text.", max_tokens=1, readings=kept)
    ask(path, "Who? " * 100, [], max_tokens=1, readings=kept)
    assert kept.entries() == []


def test_a_chat_goes_on_from_what_ask_has_read(tiny: Tiny, kept: Readings) -> None:
    path = tiny(lampe=long_config())
    ask(path, "Who?", BOOK, max_tokens=1, readings=kept)
    read: list[int] = []
    with LampeLlama(path, n_ctx=4096, progress=lambda done, total: read.append(total)) as llm:
        chat = Chat(llm, max_tokens=4, temperature=0.0, pending=[BOOK], readings=kept)
        chat.answer("What?")
        chat.pending.append(OTHER)
        chat.answer("And this?")
        assert max(read[:1]) < 40
    # what comes after something that was said would hold that too: it is not kept
    assert [each.documents for each in kept.entries()] == [("the book",)]
    # the same conversation in another process, from its beginning
    read.clear()
    with LampeLlama(path, n_ctx=4096, progress=lambda done, total: read.append(total)) as llm:
        again = Chat(llm, max_tokens=4, temperature=0.0, turns=chat.turns, readings=kept)
        again.answer("So?")
        assert llm.n_tokens > 2500 and max(read) < llm.n_tokens - 1300


def test_the_prompts_length_matters_where_the_policy_says_so(tiny: Tiny, kept: Readings) -> None:
    path = tiny(lampe=long_config(length_policy="prompt"))
    for _ in range(2):
        assert ask(path, "Who?", BOOK, max_tokens=1, readings=kept).kept_tokens == 0
    assert kept.entries() == [] and kept.said == []  # type: ignore[attr-defined]


@pytest.fixture
def place(tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(limit.FOLDER, str(tmp_path / "cache"))
    monkeypatch.delenv(limit.MOST)
    tiny("m.gguf", lampe=long_config())
    (tmp_path / "b.txt").write_text(BOOK.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "readings"


def test_the_commands(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = ["--doc", "b.txt"]
    assert cli.main(["readings"]) == 0
    assert capsys.readouterr().out == f"0 kept, 0 kB of at most 10.0 GB, in {place}\n"
    assert cli.main(["ask", "m.gguf", "Who?", *book, "--max-tokens", "2", "--no-readings"]) == 0
    assert not place.exists()
    capsys.readouterr()
    assert cli.main(["read", "m.gguf", *book]) == 0
    assert " tokens, 1 MB, as " in capsys.readouterr().out
    [entry] = Readings().entries()
    assert cli.main(["read", "m.gguf", *book, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["new"] is False and said["id"] == entry.id and said["tokens"] == entry.tokens
    assert Path(said["file"]).stat().st_size == said["bytes"]
    assert cli.main(["ask", "m.gguf", "Who?", *book, "--max-tokens", "2"]) == 0
    assert f", {entry.tokens:,} tokens from a kept reading in " in capsys.readouterr().err
    assert cli.main(["ask", "m.gguf", "Who?", *book, "--max-tokens", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept_tokens"] == entry.tokens
    assert cli.main(["readings"]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{entry.id}  ") and first.endswith("m.gguf  b.txt")
    assert last.startswith("1 kept, 1 MB of at most 10.0 GB")
    assert cli.main(["readings", "--remove", "nothing"]) == 2
    assert "there is no reading nothing" in capsys.readouterr().err
    assert cli.main(["readings", "--remove", entry.id]) == 0
    assert capsys.readouterr().out == "removed 1, 1 MB\n" and list(place.iterdir()) == []
    assert cli.main(["readings", "--json", "--remove", "all"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == []


def test_a_chat_of_the_command_line_keeps_too(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", open(os.devnull, encoding="utf-8"))
    Path("line").write_text("Who?\n")
    for options, n_kept in ((["--no-readings"], 0), ([], 1)):
        monkeypatch.setattr(sys, "stdin", open("line", encoding="utf-8"))
        assert cli.main(["chat", "m.gguf", "--doc", "b.txt", "--max-tokens", "2", *options]) == 0
        assert len(Readings().entries()) == n_kept


@pytest.mark.parametrize("arguments, said", [
    (["read", "m.gguf"], "--doc"),
    (["read", "m.gguf", "--doc", "b.txt", "--readings-max", "big"], "'big' is no size"),
    (["read", "m.gguf", "--doc", "b.txt", "--readings-max", "0"], "give --readings-max 10G"),
])
def test_wrong_usage_is_said(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert cli.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_what_cannot_be_kept_is_the_failure_of_read_alone(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--doc", "b.txt", "--readings-max", "1k"]
    assert cli.main(["read", "m.gguf", *few]) == 1
    assert "readings may take 1 kB" in capsys.readouterr().err
    assert cli.main(["ask", "m.gguf", "Who?", *few, "--max-tokens", "2"]) == 0
    assert "readings may take 1 kB" in capsys.readouterr().err
    tight = Path("tight.gguf")
    assert not tight.exists() and not list(place.glob("*"))


def test_loading_says_how_far_it_is(tiny: Tiny, kept: Readings) -> None:
    path = tiny(lampe=long_config())
    ask(path, "Who?", BOOK, max_tokens=1, readings=kept)
    seen: list[tuple[int, int]] = []
    kept.on_progress = lambda done, total: seen.append((done, total))
    ask(path, "Who?", BOOK, max_tokens=1, readings=kept)
    [entry] = kept.entries()
    assert seen[-1] == (entry.bytes, entry.bytes) and all(done < total for done, total in seen[:-1])
    assert time.time() - entry.used < 60 and "readings" in inspect.signature(ask).parameters
