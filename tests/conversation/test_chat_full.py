"""A chat whose context is full: the line is kept, and there is a way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import call, tiny_config

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.conversation.chat import Chat
from lampe_gguf.conversation.documents import Document
from lampe_gguf.errors import LampeError
from lampe_gguf.shown import counted

BOOK = Document("book", "The kite was red. The boat was blue. " * 4)


@pytest.fixture
def chat(smollm2_path: Path) -> Chat:
    said: list[str] = []
    chat = Chat(LampeLlama(smollm2_path, n_ctx=256), said.append, max_tokens=12, temperature=0.0,
                seed=1)
    chat.said = said  # type: ignore[attr-defined]
    return chat


def fill(chat: Chat) -> str:
    """Talk until it is full; gives what was said of that."""
    for number in range(30):
        try:
            chat.handle(f"Tell me more about boat number {number}, please, in some words.")
        except LampeError as error:
            return str(error)
    raise AssertionError("it never was full")


def test_a_full_chat_offers_a_way_out_and_keeps_the_line(chat: Chat) -> None:
    chat.pending.append(BOOK)
    error = fill(chat)
    n_turns = len(chat.turns)
    assert n_turns >= 3
    assert "the context is full" in error and "the context holds 256" in error
    for way in ("/drop forgets the oldest", "/reset", "/retry", "--n-ctx"):
        assert way in error
    unsent = chat.unsent
    assert unsent is not None and unsent.startswith("Tell me more")
    # another line that does not fit is kept instead, and the sentence is not said again
    with pytest.raises(LampeError, match="^still full: /drop forgets .* /retry sends this line$"):
        chat.handle("And what about the kite of which the book says something, too?")
    assert chat.unsent is not None and chat.unsent.startswith("And what about")
    chat.handle("/drop")
    n_dropped = n_turns - len(chat.turns)
    assert 0 < n_dropped < n_turns
    assert f"forgot the oldest {counted(n_dropped, 'turn')}, " in chat.said[-1]
    assert 0 < chat.used < 256 and f"[{chat.used} of" in chat.prompt()
    # the document went along with the first of them and stays
    assert chat.turns[0].documents == (BOOK,) and "red" in chat.messages[0]["content"]
    before = len(chat.turns)
    chat.handle("/retry")
    assert chat.unsent is None and len(chat.turns) == before + 1
    assert chat.turns[-1].line.startswith("And what about") and chat.turns[-1].answer
    assert chat.used == chat.llm.n_tokens
    with pytest.raises(LampeError, match="no line that was not answered"):
        chat.handle("/retry")


def test_the_advice_is_true(chat: Chat) -> None:
    error = fill(chat)
    n = int(error.split("the oldest ")[1].split()[0])
    chat.handle(f"/drop {n}")
    chat.handle("/retry")
    assert chat.unsent is None


def test_after_reset_the_line_can_be_sent(chat: Chat) -> None:
    fill(chat)
    chat.handle("/reset")
    assert chat.unsent is not None and chat.used == 0 and not chat.turns
    chat.handle("/retry")
    assert len(chat.turns) == 1


def test_a_document_that_takes_all_the_room(chat: Chat) -> None:
    chat.pending.append(Document("book", "The kite was red. " * 49))
    with pytest.raises(LampeError, match="/drop doc forgets the documents"):
        chat.handle("Which colour had the kite, and what else does the book say about it, please?")
    with pytest.raises(LampeError, match="no turn to forget"):
        chat.handle("/drop")
    chat.handle("/drop doc")
    assert not chat.pending
    chat.handle("/retry")
    assert len(chat.turns) == 1 and not chat.turns[0].documents
    with pytest.raises(LampeError, match="no document to forget"):
        chat.handle("/drop doc")


def test_documents_of_turns_are_dropped_by_name_only(chat: Chat) -> None:
    chat.pending.append(BOOK)
    chat.handle("Hello.")
    chat.handle("/drop")
    assert not chat.turns and chat.pending == [BOOK] and chat.used == 0
    chat.handle("Hello again.")
    chat.handle("/drop doc")
    assert len(chat.turns) == 1 and "red" not in chat.messages[0]["content"]


def test_a_line_that_never_fits_is_not_kept(chat: Chat) -> None:
    with pytest.raises(LampeError, match="about 1,[0-9]{3} tokens .* say it in fewer words"):
        chat.handle("one two three four " * 300)
    assert chat.unsent is None


def test_a_line_that_never_fits_takes_nothing_from_the_one_that_is_kept(chat: Chat) -> None:
    fill(chat)
    kept = chat.unsent
    with pytest.raises(LampeError, match="say it in fewer words"):
        chat.handle("one two three four " * 300)
    assert kept is not None and chat.unsent == kept
    chat.handle("/drop")
    chat.handle("/retry")
    assert chat.turns[-1].line == kept


@pytest.mark.parametrize("argument", ["0", "2", "-1", "x", "1.5", "\u00b2"])
def test_what_cannot_be_dropped(chat: Chat, argument: str) -> None:
    chat.handle("Hello.")
    with pytest.raises(LampeError, match="1 to 1, or doc"):
        chat.handle(f"/drop {argument}")
    assert len(chat.turns) == 1


def test_an_answer_that_the_context_cut_says_so(smollm2_path: Path) -> None:
    said: list[str] = []
    chat = Chat(LampeLlama(smollm2_path, n_ctx=256), said.append, max_tokens=1000, temperature=0.0)
    chat.handle("Write a very long story about the sea and its sailors.")
    assert "[the context is full: /drop makes room]" in said[-2]


def test_from_the_command_line(tiny: Callable[..., Path]) -> None:
    path = tiny(lampe=tiny_config(context_length=4096))
    lines = "".join(f"{number} {'x' * 60}\n" for number in range(5))
    done = call("chat", path, "--n-ctx", 256, "--max-tokens", 4, "--seed", 1,
                stdin=f"{lines}/drop\n/retry\n/help\n/quit\n")
    assert done.returncode == 0
    assert done.stderr.count("the context is full") == 1 and "still full" in done.stderr
    assert "forgot the oldest" in done.stdout and "/retry  " in done.stdout
