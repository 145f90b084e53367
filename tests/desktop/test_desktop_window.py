"""The desktop's window without a screen: real model, real session, what a person does in it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import tiny_config
from desktop_window import SLACK, STOP, Driver, opened_window
from made_documents import pdf
from tiny_model import make_tiny_model

from lampe_gguf.desktop.relay import NICE

WINDOW = 512
SENTENCE = "The keeper of the light wrote down every ship that passed. "
LONG = SENTENCE * 250  # 14,750 tokens of the tiny model's, 28 windows
SHORT = SENTENCE * 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random, and slow enough to be stopped: its window is 512 tokens, inputs up to 65,536."""
    config = tiny_config(window=WINDOW, context_length=65536, max_mapping_length=500.0,
                         local_window=256, tail_window=16)
    return make_tiny_model(tmp_path_factory.mktemp("desktop") / "tiny.gguf", window=WINDOW,
                           lampe=config, n_layer=3)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    monkeypatch.setenv("LAMPE_GGUF_CHATS", str(tmp_path / "chats"))
    with opened_window(tmp_path / "settings.ini") as found:
        yield found


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def letters(text: str) -> str:
    """Of a random model's answer, what every way of showing it leaves as it is."""
    return "".join(each for each in text if each.isalnum())


def keep_picture(driver: Driver, name: str) -> None:
    """For whoever wants to see it: in $LAMPE_SCREENSHOTS."""
    if folder := os.environ.get("LAMPE_SCREENSHOTS"):
        driver.window.grab().save(str(Path(folder) / name))


def test_it_says_what_to_do_first(driver: Driver, model: Path) -> None:
    window = driver.window
    assert "Ctrl+O" in window.model_bar.about.text() and "Ctrl+O" in window.transcript.hint.text()
    assert window.transcript.hint.isVisible() and not window.composer.send.isEnabled()
    window.composer.line.setPlainText("Who is there?")
    assert not window.composer.send.isEnabled()
    assert "Open a model" in window.composer.send.toolTip()
    driver.open(model)
    about = window.model_bar.about.text()
    assert "reads up to 65,536 · converted" in about and "not converted" not in about
    assert window.composer.send.isEnabled()
    assert "Drop documents" in window.transcript.hint.text()


def test_a_plain_model_is_used_with_what_convert_would_write(
    driver: Driver, tiny: Callable[..., Path]
) -> None:
    plain = tiny("plain.gguf", window=256, lampe=None)
    before = plain.read_bytes()
    driver.open(plain)
    about = driver.window.model_bar.about.text()
    assert "not converted: used with what convert would write, no file is changed" in about
    assert "window 256 tokens, reads up to 1,024" in about
    driver.window.show_values()
    dialog = driver.dialog()
    assert dialog.windowTitle() == "What convert would write"
    assert "local window: 32 tokens" in dialog.accessibleDescription()
    dialog.reject()
    assert plain.read_bytes() == before


def test_a_document_beyond_the_window_is_read_and_asked_about(
    driver: Driver, model: Path, tmp_path: Path
) -> None:
    window = driver.window
    driver.open(model)
    pages = tmp_path / "report.pdf"
    pages.write_bytes(pdf(["\n".join([SENTENCE] * 10)] * 12))
    driver.add(pages)
    (row,) = window.documents.list.rows
    assert row.title == "report.pdf"
    assert "12 pages" in row.details[0] and "tokens" in row.details[0]
    assert "of the context" in row.details[1] and "to read" in row.details[1]
    shown: list[int] = []
    window.activity.bar.valueChanged.connect(
        lambda value: window.activity.label.text().startswith("Reading") and shown.append(value))
    lengths: list[int] = []
    driver.desk.working.connect(
        lambda _: driver.desk.reading and lengths.append(driver.desk.reading[1]))
    driver.say("Who wrote down the ships?")
    label = driver.until(lambda: window.activity.label.text().startswith("Reading: ")
                         and "tokens/s" in window.activity.label.text()
                         and window.activity.label.text())
    assert "left" in label
    seen = driver.until(lambda: {each.name for each in window.map.grains} >= {"middle", "tail"}
                        and window.map.grains)
    assert seen[-1].end < 12 * 10 * len(SENTENCE)  # of what is read so far, not of all
    keep_picture(driver, "desktop-reading.png")
    driver.rest()
    assert len(shown) >= 5 and shown == sorted(shown)
    assert lengths == sorted(lengths) and lengths[-1] > 12 * WINDOW
    (turn,) = driver.desk.current.dialogue.turns
    assert turn.answer and letters(turn.answer) in letters(driver.shown())
    assert "tokens read" in driver.shown() and "24 written" in driver.shown()
    assert driver.desk.current.dialogue.used > 12 * WINDOW
    assert window.documents.list.rows[0].details[1] == "read"
    said = window.map.accessibleDescription()
    assert "report.pdf: " in said and "% middle" in said and "compressed" in said
    keep_picture(driver, "desktop-answer.png")
    # and once more, about what lies there
    driver.answered("And who read it?")
    assert len(driver.desk.current.dialogue.turns) == 2
    assert driver.shown().count("You") == 2


def test_stop_while_loading(driver: Driver, smollm2_path: Path) -> None:
    driver.window.open_model(smollm2_path)
    driver.until(lambda: driver.desk.doing == "loading")
    assert driver.stop() < STOP + SLACK
    assert driver.desk.opened is None and driver.window.notice.text.startswith("Stopped")
    (again,) = driver.window.notice.ways
    again.click()
    driver.until(lambda: driver.desk.opened is not None)


def test_stop_while_reading_and_ask_again(driver: Driver, model: Path, tmp_path: Path) -> None:
    driver.open(model)
    driver.add(written(tmp_path, "long.txt", LONG))
    driver.say("Who?")
    driver.until(lambda: driver.desk.reading and driver.desk.reading[1] > 2 * WINDOW)
    assert driver.stop() < STOP + SLACK
    dialogue = driver.desk.current.dialogue
    assert dialogue.unsent == "Who?" and not dialogue.turns
    assert "not answered yet" in driver.shown()
    (again,) = driver.window.notice.ways
    assert again.text() == "Ask again"
    driver.window.documents.list.choose(dialogue.pending[0].document)
    driver.window.documents.take_out.click()
    assert not dialogue.pending
    driver.add(written(tmp_path, "short.txt", SHORT))
    again.click()
    driver.until(lambda: dialogue.turns)
    driver.rest()
    assert dialogue.unsent is None and dialogue.turns[0].line == "Who?"
    assert "not answered yet" not in driver.shown()


def test_stop_while_writing_keeps_what_was_written(
    tmp_path: Path, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMPE_GGUF_CHATS", str(tmp_path / "chats"))
    with opened_window(tmp_path / "settings.ini", max_tokens=2000, n_ctx=4096) as driver:
        driver.open(smollm2_path)
        driver.say("Write a long story about a lighthouse.")
        talk = driver.desk.current
        driver.until(lambda: len(talk.written) > 40)
        assert talk.written[:20] in driver.window.transcript.text.toPlainText()
        assert driver.stop() < STOP + SLACK
        (turn,) = talk.dialogue.turns
        assert turn.answer.startswith(talk.written[:40])
        assert "stopped" in driver.shown() and "written" in driver.shown()
        assert driver.window.composer.line.isEnabled()
        driver.window.copy_answer()
        assert driver.window.transcript.last_answer().strip() == turn.answer.strip()


def test_what_was_asked_while_it_loads_is_kept_where_that_is_stopped(
    driver: Driver, smollm2_path: Path
) -> None:
    driver.window.open_model(smollm2_path)
    driver.until(lambda: driver.desk.doing == "loading")
    driver.say("Are you there?")
    assert driver.stop() < STOP + SLACK
    dialogue = driver.desk.current.dialogue
    assert dialogue.unsent == "Are you there?" and not dialogue.turns
    driver.window.composer.line.recalled.emit()
    assert driver.window.composer.line.toPlainText() == "Are you there?"


def test_close_while_reading(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMPE_GGUF_CHATS", str(tmp_path / "chats"))
    with opened_window(tmp_path / "settings.ini") as driver:
        driver.open(model)
        driver.add(written(tmp_path, "long.txt", LONG))
        driver.say("Who?")
        driver.until(lambda: driver.desk.reading and driver.desk.reading[1] > WINDOW)
        assert driver.close() < STOP + SLACK
        assert driver.desk.session.is_closed
    with opened_window(tmp_path / "settings.ini") as driver:
        driver.until(lambda: driver.desk.opened is not None)  # the model of the last time
        row = driver.until(lambda: next((row for row in driver.window.chats.list.rows
                                         if row.title == "Who?"), None))
        driver.desk.turn_to(row.key)
        dialogue = driver.until(lambda: driver.desk.current.dialogue.unsent
                                and driver.desk.current.dialogue)
        assert [each.document.name.rpartition("/")[2] for each in dialogue.pending] == ["long.txt"]
        assert "no answer" in driver.window.notice.text


def test_conversations_are_kept_and_resumed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMPE_GGUF_CHATS", str(tmp_path / "chats"))
    path = written(tmp_path, "short.txt", SHORT)
    with opened_window(tmp_path / "settings.ini") as driver:
        driver.open(model)
        driver.add(path)
        first = driver.answered("Who wrote?")
        driver.window.new_conversation()
        assert driver.window.transcript.hint.isVisible()
        driver.answered("Another matter")
        driver.window.next_conversation()
        driver.until(lambda: "Who wrote?" in driver.shown())
        driver.window.previous_conversation()
        driver.until(lambda: "Another matter" in driver.shown())
    path.write_text("something else", encoding="utf-8")  # its text is in the conversation
    with opened_window(tmp_path / "settings.ini") as driver:
        driver.until(lambda: driver.desk.opened is not None)
        rows = driver.until(lambda: len(driver.window.chats.list.rows) == 3
                            and driver.window.chats.list.rows)
        assert [row.title for row in rows] == ["New conversation", "Another matter", "Who wrote?"]
        driver.desk.turn_to(rows[2].key)
        driver.until(lambda: "Who wrote?" in driver.shown())
        assert letters(first) in letters(driver.shown())
        assert "short.txt" in driver.window.notice.text  # it is said that the file has changed
        assert driver.window.documents.list.rows[0].title == "short.txt"
        driver.until(lambda: "tokens" in driver.window.documents.list.rows[0].details[0])
        assert driver.window.map.grains  # what lay in the context, though it is read later
        driver.answered("Go on")
        assert len(driver.desk.current.dialogue.turns) == 2
        # and one is removed, after a question
        driver.window.remove_conversation()
        driver.dialog().accept()
        driver.until(lambda: [row.title for row in driver.window.chats.list.rows]
                     == ["New conversation", "Another matter"])
        assert len(list((tmp_path / "chats").glob("*.jsonl"))) == 1


def test_a_model_that_is_refused_leaves_the_other(
    driver: Driver, model: Path, tmp_path: Path, tiny: Callable[..., Path]
) -> None:
    driver.open(model)
    for path, why in (
        (written(tmp_path, "no.gguf", "no model"), "no.gguf is not open"),
        (tmp_path / "nowhere.gguf", "nowhere.gguf is not open"),
        (tiny("alibi.gguf", lampe=None, extra={"general.architecture": "bloom"}),
         "LaMPE cannot extend this model: it has no RoPE"),
    ):
        driver.window.open_model(path)
        driver.until(lambda: not driver.desk.is_busy and driver.window.notice.text)
        assert why in driver.window.notice.text and driver.window.notice.kind == "error"
        assert driver.desk.opened is not None and driver.desk.opened.path == str(model)
        assert driver.window.memory.text("model") == str(model)
        assert "converted" in driver.window.model_bar.about.text()
    assert driver.answered("Still there?")


def test_a_model_is_dropped_and_a_document_with_it(
    driver: Driver, model: Path, tmp_path: Path
) -> None:
    renamed = tmp_path / "Model.GGUF"
    renamed.write_bytes(model.read_bytes())
    driver.drop(written(tmp_path, "a.txt", SHORT), renamed)
    driver.until(lambda: driver.desk.opened is not None and not driver.desk.is_busy)
    driver.until(lambda: len(driver.window.documents.list.rows) == 1)
    assert driver.desk.opened is not None and driver.desk.opened.path == str(renamed)
    assert not driver.window.notice.text, "the model is no document"
    driver.window.composer.line.dropped.emit([str(model)])  # where the mouse is over the text
    driver.until(lambda: driver.desk.opened is not None and driver.desk.opened.path == str(model)
                 and not driver.desk.is_busy)
    assert len(driver.window.documents.list.rows) == 1


def test_a_file_that_vanishes(driver: Driver, model: Path, tmp_path: Path) -> None:
    driver.open(model)
    path = written(tmp_path, "gone.txt", SHORT)
    path.unlink()
    driver.drop(path)
    driver.until(lambda: driver.window.notice.text)
    assert "gone.txt" in driver.window.notice.text and driver.window.notice.kind == "error"
    assert not driver.window.documents.list.rows
    model_copy = tmp_path / "copy.gguf"
    model_copy.write_bytes(model.read_bytes())
    driver.open(model_copy)
    driver.add(written(tmp_path, "long.txt", LONG * 2))
    model_copy.unlink()  # it is needed again: the context grows
    driver.say("Who?")
    driver.until(lambda: not driver.desk.is_busy)
    assert "copy.gguf" in driver.window.notice.text and driver.window.notice.kind == "error"
    assert driver.desk.current.dialogue.unsent == "Who?"


def test_export_as_markdown(driver: Driver, model: Path, tmp_path: Path) -> None:
    driver.open(model)
    answer = driver.answered("Who is it?")
    driver.window.choose_export()
    driver.choose(tmp_path / "out.md")
    driver.until(lambda: "out.md" in driver.window.notice.text)
    text = (tmp_path / "out.md").read_text(encoding="utf-8")
    assert "Who is it?" in text and letters(answer) and letters(answer) in letters(text)
    driver.window.export(str(tmp_path / "nowhere" / "out.md"))
    driver.until(lambda: "cannot be written" in driver.window.notice.text)
    assert driver.window.notice.kind == "error"


def test_too_much_is_refused_with_the_ways_out(driver: Driver, model: Path, tmp_path: Path
                                               ) -> None:
    driver.open(model)
    driver.add(written(tmp_path, "huge.txt", SENTENCE * 1300))  # 76,700 of 65,536 tokens
    (row,) = driver.window.documents.list.rows
    assert "117 % of the context" in row.details[1]
    driver.say("Who?")
    driver.until(lambda: driver.window.notice.text)
    assert "65,536" in driver.window.notice.text and driver.window.notice.kind == "error"
    assert driver.desk.current.dialogue.unsent == "Who?"


def test_a_long_paste_is_a_document(driver: Driver, model: Path) -> None:
    driver.open(model)
    line = driver.window.composer.line
    line.pasted.emit(LONG)
    driver.until(lambda: driver.window.documents.list.rows)
    assert driver.window.documents.list.rows[0].title == "pasted text"
    assert not line.toPlainText()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads have one priority")
def test_who_computes_gives_way_to_the_window(driver: Driver, model: Path) -> None:
    before = os.getpriority(os.PRIO_PROCESS, threading.main_thread().native_id or 0)
    driver.open(model)
    driver.answered("Who?")
    nice = {each.name: os.getpriority(os.PRIO_PROCESS, each.native_id or 0)
            for each in threading.enumerate() if each.name.startswith("lampe-gguf")}
    assert nice == {"lampe-gguf computing": NICE, "lampe-gguf files": NICE}
    assert os.getpriority(os.PRIO_PROCESS, threading.main_thread().native_id or 0) == before


def test_a_question_waits_for_its_documents(driver: Driver, model: Path, tmp_path: Path) -> None:
    driver.open(model)
    driver.window.composer.line.setPlainText("Who?")
    driver.drop(written(tmp_path, "long.txt", LONG))
    assert not driver.window.composer.send.isEnabled()
    assert "being opened" in driver.window.composer.send.toolTip()
    driver.window.send()
    assert driver.window.notice.text == "The documents are still being opened."
    driver.until(lambda: driver.window.documents.list.rows)
    assert driver.window.composer.line.toPlainText() == "Who?" and not driver.desk.current.is_asking
    driver.until(driver.window.composer.send.isEnabled)


def test_opening_and_asking_never_waits(driver: Driver, model: Path, tmp_path: Path) -> None:
    """No call takes the thread of the window for long, however long the work takes."""
    path = written(tmp_path, "long.txt", LONG)
    start = time.monotonic()
    driver.window.open_model(model)
    driver.drop(path)
    driver.window.new_conversation()
    driver.window.stop()
    assert time.monotonic() - start < 0.5
    driver.rest()
