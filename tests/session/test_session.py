"""A model in a thread of its own: what it says, how it stops, and what is left of it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import tiny_config

from lampe_gguf import (
    Cancelled,
    Document,
    Event,
    Failed,
    LampeError,
    LampeLlama,
    Note,
    Progress,
    Request,
    Session,
    Stopped,
    Token,
)
from lampe_gguf.conversation.chat import Chat
from lampe_gguf.conversation.journal import Journal

Tiny = Callable[..., Path]
SOON = 30.0  # seconds that nothing here takes, unless it hangs
CONFIG = tiny_config(context_length=4096)
LONG = Document("long", "word " * 160)


@pytest.fixture
def model(tiny: Tiny) -> Path:
    return tiny(lampe=CONFIG)


@pytest.fixture
def session(model: Path) -> Iterator[Session]:
    with Session(model, n_ctx=256) as session:
        yield session


def kinds(request: Request[object]) -> list[str]:
    """The names of its events, those in a row once, with the stages of progress."""
    found: list[str] = []
    for event in request:
        name = event.stage if isinstance(event, Progress) else type(event).__name__
        if found[-1:] != [name]:
            found.append(name)
    return found


def cancel_at(request: Request[object], when: Callable[[Event], bool]) -> None:
    def look(event: Event) -> None:
        if when(event):
            request.cancel()

    request.listen(look)


def test_a_question_is_opened_read_and_answered_in_that_order(session: Session) -> None:
    assert session.opening is not None and kinds(session.opening) == ["loading", "Finished"]
    dialogue = session.dialogue(max_tokens=8, temperature=0)
    assert kinds(dialogue.add([Document("a", "one two"), LONG])) == ["counting", "Finished"]
    assert [each.document.name for each in dialogue.pending] == ["a", "long"]
    request = dialogue.ask("Hello?")
    # 256 tokens do not hold it: the model is opened again
    assert kinds(request) == ["counting", "loading", "reading", "Token", "Finished"]
    answer = request.result()
    assert answer.n_ctx >= answer.prompt_tokens + 8 > 800 and session.opened is not None
    assert session.opened.n_ctx == answer.n_ctx and answer.plan is not None
    assert dialogue.pending == () and dialogue.unsent is None and dialogue.title == "Hello?"
    names, tokens = zip(*dialogue.stretches, strict=True)
    assert names == ("a", "long", "") and sum(tokens) == dialogue.used
    assert "## You" in dialogue.markdown() and answer.text in dialogue.markdown()


def test_it_answers_what_a_chat_answers(session: Session, model: Path) -> None:
    dialogue = session.dialogue(max_tokens=12, temperature=0)
    said = [dialogue.ask(line).result(SOON).text for line in ("Hello", "And you?")]
    with LampeLlama(model, n_ctx=256) as llm:
        chat = Chat(llm, max_tokens=12, temperature=0)
        assert said == [chat.answer(line) for line in ("Hello", "And you?")]


def test_progress_says_what_lies_before_and_how_long_it_takes(model: Path) -> None:
    with Session(model, n_ctx=1024) as session:
        dialogue = session.dialogue(max_tokens=2)
        dialogue.ask("Hello").result(SOON)
        before = dialogue.used
        dialogue.add(LONG).result(SOON)
        reading = [each for each in dialogue.ask("More")
                   if isinstance(each, Progress) and each.stage == "reading"]
        assert reading[0].done == 0 and reading[0].eta is not None and reading[0].eta > 0
        assert abs(reading[0].before - before) < 16 and reading[-1].done == reading[-1].total
        assert session.seconds_to_read(2000) > session.seconds_to_read(1000) > 0  # type: ignore[operator]


def test_stopped_while_it_waits_it_ends_at_once(session: Session) -> None:
    dialogue = session.dialogue()
    dialogue.add(LONG).result(SOON)
    first, second = dialogue.ask("First"), session.dialogue().ask("Second")
    second.cancel()
    assert isinstance(second.poll()[-1], Stopped)
    first.cancel()
    with pytest.raises(Cancelled):
        first.result(SOON)


def test_stopped_while_loading(smollm2_path: Path) -> None:
    with Session() as session:
        request = session.open(smollm2_path)
        cancel_at(request, lambda event: isinstance(event, Progress) and event.done > 0)
        assert isinstance(list(request)[-1], Stopped) and session.opened is None
        # and it can be opened again
        assert session.open(smollm2_path).result(SOON).architecture == "llama"


def test_stopped_while_reading_the_line_is_kept(model: Path) -> None:
    with Session(model, n_ctx=4096) as session:
        dialogue = session.dialogue(max_tokens=4, temperature=0)
        dialogue.add(Document("book", "word " * 600)).result(SOON)
        request = dialogue.ask("Why?")
        cancel_at(request, lambda event: isinstance(event, Progress) and event.stage == "reading")
        end = list(request)[-1]
        assert isinstance(end, Stopped) and end.result is None
        assert dialogue.unsent == "Why?" and dialogue.turns == () and len(dialogue.pending) == 1
        assert dialogue.retry().result(SOON).prompt_tokens > 3000
        assert dialogue.unsent is None and dialogue.pending == ()


def test_stopped_while_writing_what_there_is_stays(session: Session) -> None:
    dialogue = session.dialogue(max_tokens=200)
    request = dialogue.ask("Tell me")
    cancel_at(request, lambda event: isinstance(event, Token))
    end = list(request)[-1]
    assert isinstance(end, Stopped) and end.result.is_stopped
    assert dialogue.turns[0].answer == end.result.text != "" and dialogue.unsent is None
    with pytest.raises(Cancelled):
        request.result(SOON)


def test_it_stops_within_a_second_in_the_middle_of_a_batch(smollm2_path: Path) -> None:
    with Session(smollm2_path, n_ctx=4096) as session:
        dialogue = session.dialogue()
        dialogue.add(Document("book", "The sea was calm. " * 600)).result(SOON)
        request = dialogue.ask("Why?")
        for event in request:
            if isinstance(event, Progress) and event.stage == "reading":
                time.sleep(0.3)  # somewhere within the first 512 tokens
                start = time.monotonic()
                request.cancel()
        assert time.monotonic() - start < 1.0 and request.done()


def test_files_are_read_while_the_model_is_busy(smollm2_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir")
    with Session(smollm2_path, n_ctx=4096) as session:
        dialogue = session.dialogue()
        dialogue.add(Document("book", "The sea was calm. " * 600)).result(SOON)
        busy = dialogue.ask("Why?")
        for event in busy:
            if isinstance(event, Progress) and event.stage == "reading":
                break
        added = dialogue.add(path)
        assert [each.tokens for each in added.result(SOON)] == [2] and not busy.done()
        assert any(isinstance(each, Note) and "8 characters" in each.text for each in added)


def test_what_fails_says_why_and_the_session_lives_on(
    model: Path, tiny: Tiny, tmp_path: Path
) -> None:
    text = tmp_path / "book.txt"
    text.write_text("no model")
    with Session() as session:
        dialogue = session.dialogue()
        for request, said in (
            (dialogue.ask("Hello"), "no model is open"),
            (session.open(text), "GGUF"),
            (session.open(tmp_path / "none.gguf"), "none.gguf"),
            (dialogue.add(tmp_path / "gone.pdf"), "cannot read"),
            (session.resume("nothing"), "neither a file nor a chat"),
            (dialogue.drop(3), "there are 0 turns"),
            (session.dialogue().retry(), "no line without an answer"),
        ):
            end = list(request)[-1]
            assert isinstance(end, Failed) and said in str(end.error), end
            with pytest.raises(LampeError, match=said):
                request.result()
        assert dialogue.unsent == "Hello"
        session.open(model).result(SOON)
        assert isinstance(session.open(text).exception(SOON), LampeError)
        assert session.opened is not None  # what was open stays open
        dialogue.add(Document("too long", "word " * 1000)).result(SOON)
        error = dialogue.ask("Hello").exception(SOON)
        assert "supports 4,096" in str(error) and "ask about a part" in str(error)
        assert len(dialogue.pending) == 1


def test_what_listens_hears_all_and_may_fail(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    request = session.dialogue(max_tokens=6).ask("Hello")
    heard: list[Event] = []
    request.listen(lambda event: heard.append(event))
    request.listen(lambda event: 1 / 0)
    request.result(SOON)
    late: list[Event] = []
    request.listen(late.append)
    assert heard == late == list(request) == request.poll() and request.poll() == []
    assert "ZeroDivisionError" in caplog.text


def test_the_same_with_asyncio(session: Session) -> None:
    async def talk() -> tuple[str, str]:
        dialogue = session.dialogue(max_tokens=6)
        request = dialogue.ask("Hello")
        parts = [event.text async for event in request if isinstance(event, Token)]
        assert (await dialogue.ask("Again")).answer_tokens <= 6
        dialogue.add(Document("book", "word " * 600))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(dialogue.ask("Much", max_tokens=3000), 0.02)
        return "".join(parts), request.result().text

    one, other = asyncio.run(talk())
    assert one == other


def test_many_threads_ask_at_once(session: Session) -> None:
    answers: list[str] = []

    def ask() -> None:
        answers.append(session.dialogue(max_tokens=5, temperature=0).ask("Hello").result(SOON).text)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(SOON)
    assert len(answers) == 8 and len(set(answers)) == 1


def test_closed_while_reading(smollm2_path: Path) -> None:
    session = Session(smollm2_path, n_ctx=4096)
    dialogue = session.dialogue()
    dialogue.add(Document("book", "The sea was calm. " * 600)).result(SOON)
    request = dialogue.ask("Why?")
    for event in request:
        if isinstance(event, Progress) and event.stage == "reading":
            break
    start = time.monotonic()
    session.close()
    assert time.monotonic() - start < 1.5 and request.done() and session.opened is None
    assert "closed" in str(dialogue.ask("And now?").exception(SOON))
    assert "closed" in str(dialogue.add("text").exception(SOON))
    session.close()


def test_a_kept_conversation_is_resumed_and_removed(model: Path) -> None:
    with Session(model, n_ctx=256) as session:
        dialogue = session.dialogue(keep=True, max_tokens=6, temperature=0)
        dialogue.add(Document("a", "one two")).result(SOON)
        first = dialogue.ask("Hello").result(SOON).text
        name = dialogue.id
        assert name
    with Session(model, n_ctx=256) as session:
        assert name in [each.id for each in session.chats().result(SOON)]
        again = session.resume(name).result(SOON)
        assert again.id == name and again.turns[0].answer == first and again.model == str(model)
        again.recount().result(SOON)
        assert again.stretches[0][0] == "a" and again.used > 20
        again.ask("And?").result(SOON)
        assert len(again.turns) == 2
        assert session.remove_chat(name).exception(SOON) is None
        assert name not in [each.id for each in session.chats().result(SOON)]


def test_what_a_resumed_journal_has_to_say_is_heard(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session(model, n_ctx=256) as session:
        dialogue = session.dialogue(keep=True, max_tokens=3)
        dialogue.ask("Hello").result(SOON)
        name = dialogue.id
    with Session(model, n_ctx=256) as session:
        again = session.resume(name).result(SOON)
        monkeypatch.setattr(Journal, "update", lambda self, *_: self.on_note("the disk is full"))
        assert Note("the disk is full") in list(again.ask("And?"))


def test_a_turn_is_dropped_and_its_document_stays(session: Session) -> None:
    dialogue = session.dialogue(max_tokens=3)
    dialogue.add(Document("a", "one two")).result(SOON)
    dialogue.ask("First").result(SOON)
    dialogue.ask("Second").result(SOON)
    dialogue.drop().result(SOON)
    assert [turn.line for turn in dialogue.turns] == ["Second"]
    assert [each.name for each in dialogue.turns[0].documents] == ["a"]
    dialogue.drop().result(SOON)
    assert dialogue.turns == () and [each.document.name for each in dialogue.pending] == ["a"]
    dialogue.remove(dialogue.pending[0].document)
    assert dialogue.pending == ()


def test_what_others_print_meanwhile_is_not_lost(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stop = threading.Event()
    printed = 0

    def load() -> None:
        while not stop.is_set():
            with Session(model, n_ctx=64) as session:
                assert session.opening is not None
                session.opening.result(SOON)
                session.open(tmp_path).exception(SOON)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for each in threads:
        each.start()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        print("line", flush=True)
        printed += 1
        time.sleep(0.001)
    stop.set()
    for each in threads:
        each.join(SOON)
    found = capfd.readouterr()
    assert found.out.count("line\n") == printed and found.err == ""


def test_a_program_that_forgets_to_close_ends(smollm2_path: Path) -> None:
    program = (
        "import sys\nfrom lampe_gguf import Document, Session\n"
        "session = Session(sys.argv[1], n_ctx=4096)\nsession.opening.result()\n"
        "dialogue = session.dialogue()\n"
        "dialogue.add(Document('book', 'The sea was calm. ' * 600)).result()\n"
        "request = dialogue.ask('Why?')\n"
        "next(each for each in request if getattr(each, 'stage', '') == 'reading')\n"
        "print('asked')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(smollm2_path)], timeout=60,
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "asked\n", "")


def test_a_session_that_nobody_holds_ends_its_threads(model: Path) -> None:
    before = threading.active_count()
    session = Session(model, n_ctx=256)
    dialogue = session.dialogue(keep=True, max_tokens=2)
    dialogue.ask("Hello").result(SOON)
    assert threading.active_count() == before + 2
    del session, dialogue
    gc.collect()
    end = time.monotonic() + SOON
    while threading.active_count() > before:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_fifty_sessions_leave_neither_threads_nor_memory(model: Path) -> None:
    def resident() -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
        raise AssertionError

    def once() -> None:
        with Session(model, n_ctx=512) as session:
            dialogue = session.dialogue(max_tokens=2)
            dialogue.add(LONG)
            dialogue.ask("Hello").result(SOON)

    for _ in range(25):  # until the heaps of so many threads have their size
        once()
    time.sleep(0.5)
    threads, memory = len(list(Path("/proc/self/task").iterdir())), resident()
    for _ in range(50):
        once()
    time.sleep(0.5)
    assert len(list(Path("/proc/self/task").iterdir())) <= threads
    # a model or a conversation that stays behind takes 800 kB
    assert resident() - memory < 50 * 400, "kB more"
