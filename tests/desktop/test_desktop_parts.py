"""The parts of the desktop program that are no window, and what all of it may import."""

from __future__ import annotations

import ast
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import tiny_config
from desktop_window import application

import lampe_gguf
from lampe_gguf import Progress
from lampe_gguf.desktop import words
from lampe_gguf.desktop.grains import grains, parts, sentences
from lampe_gguf.desktop.labels import Elided, breakable
from lampe_gguf.desktop.map_view import MapView
from lampe_gguf.desktop.memory import Memory
from lampe_gguf.desktop.relay import Relay
from lampe_gguf.desktop.theme import DARK_THEME, LIGHT_THEME, Theme
from lampe_gguf.desktop.transcript import Said, Transcript

ROOM = Path(lampe_gguf.__file__).parent / "desktop"


def imports(path: Path) -> list[tuple[str, list[str]]]:
    """(module, names) of each import: "." for this room."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(each.name, [""]) for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(("." * node.level + (node.module or ""), [a.name for a in node.names]))
    return found


def test_it_imports_what_anyone_may() -> None:
    allowed = set(sys.stdlib_module_names) | {"PySide6"}
    seen = set()
    for path in ROOM.glob("*.py"):
        for module, names in imports(path):
            if module == "lampe_gguf":
                assert set(names) <= set(lampe_gguf.__all__), f"{path.name}: {names}"
                seen |= set(names)
            elif module.startswith("."):
                assert not module.startswith(".."), f"{path.name}: {module}"
            else:
                assert module.partition(".")[0] in allowed, f"{path.name}: {module}"
    assert {"Session", "Dialogue", "Progress", "Token"} <= seen


def test_it_asks_for_nothing_private() -> None:
    """No name of ours that begins with an underscore, but one's own."""
    for path in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") \
                    and not node.attr.startswith("__"):
                owner = ast.unparse(node.value)
                assert owner == "self", f"{path.name}:{node.lineno} {owner}.{node.attr}"


def test_the_grains_are_those_of_the_plan() -> None:
    config = tiny_config()  # window 32, exact up to 8, tail 3
    assert grains(config, 0) == []
    (only,) = grains(config, 12)
    assert (only.name, only.begin, only.end, only.farthest) == ("local", 0, 12, 11)
    tail, middle, local = grains(config, 200)
    plan = config.plan(200)
    assert (tail.begin, tail.end) == (0, 3) and (local.begin, local.end) == (191, 200)
    assert (local.nearest, local.farthest) == (0, 8) and middle.end == 191
    assert tail.farthest == plan.mapping_length - 1 and tail.farthest - tail.nearest == 2
    assert middle.nearest >= 8 and middle.farthest - middle.nearest < 12  # 188 tokens in these
    for grain in (tail, middle, local):
        for position in (grain.begin, grain.end - 1):
            distance = 199 - position
            expected = ("local" if distance <= plan.local_window else
                        "tail" if distance >= plan.tail_start else "middle")
            assert grain.name == expected
    (whole,) = grains(None, 200)
    assert whole.farthest == 199


def test_documents_lie_in_the_grains() -> None:
    found = grains(tiny_config(), 200)
    made = parts([("a", 50), ("b", 120)], found)
    assert [(each.label, each.grain, each.begin, each.end) for each in made] == [
        ("a", "tail", 0, 3), ("a", "middle", 3, 50), ("b", "middle", 50, 170),
        ("", "middle", 170, 191), ("", "local", 191, 200)]
    said = sentences(made, found)
    assert "a: 94 % middle, 6 % tail." in said and "b: 100 % middle." in said
    assert said[0].startswith("Local: 9 tokens, exact")
    # while it is being read, what comes is not there yet
    early = parts([("a", 50), ("b", 120)], grains(tiny_config(), 60))
    assert early[-1].end == 60 and {each.label for each in early} == {"a", "b"}
    assert sentences([], []) == ["Nothing is read yet."]


@pytest.mark.parametrize("theme", [LIGHT_THEME, DARK_THEME], ids=lambda theme: theme.name)
def test_the_map_shows_each_grain_in_its_colour(theme: Theme) -> None:
    application()
    view = MapView()
    view.resize(500, view.sizeHint().height())
    view.set_theme(theme)
    view.show_context(tiny_config(), [("a.txt", 50), ("b.txt", 120)], 200, 200)
    image = view.grab().toImage()
    row = [image.pixelColor(x, _middle_of_tokens(view)).name() for x in range(500)]
    count = {name: row.count(theme.colour(name).name()) for name in ("local", "middle", "tail")}
    assert count["middle"] > 400 and count["local"] > 10 and count["tail"] > 3
    assert "a.txt" in view.accessibleDescription()
    view.show_context(tiny_config(), [("a.txt", 50), ("b.txt", 120)], 100, 200)
    image = view.grab().toImage()
    row = [image.pixelColor(x, _middle_of_tokens(view)).name() for x in range(500)]
    assert 200 < row.count(theme.colour("line").name()) < 280  # not read yet


def _middle_of_tokens(view: MapView) -> int:
    return view.fontMetrics().height() + 18


def test_what_is_said_of_progress() -> None:
    reading = Progress("reading", 1024, 12_000, "tokens", 210.4, 52.0)
    assert words.progress(reading) == \
        "Reading: 1,024 of 12,000 tokens · 210 tokens/s · 52 s left"
    assert words.progress(Progress("loading", 40, 100, "%", 20.0, 3.0)) == \
        "Loading the model: 40 % · 3 s left"
    assert words.progress(Progress("opening", 3, 0, "pages")) == "Opening the documents"
    assert words.duration(125) == "2 min 05 s" and words.size(92e6) == "92 MB"
    assert words.percent(0.004) == "under 1 %" and words.some(1, "page") == "1 page"
    assert words.shortened("x" * 9000).count("x") == 4000
    assert "5,000 characters left out" in words.shortened("x" * 9000)
    assert words.file_name("/a/b/c.txt") == "c.txt"
    assert words.file_name("the letter") == "the letter"
    assert "\x1b" not in words.file_name("/a/\x1b[31m.txt")


def test_what_does_not_fit_is_shortened() -> None:
    application()
    label = Elided()
    label.setText("a long text " * 20)
    label.resize(100, 20)
    assert label.accessibleName() == label.toolTip() == "a long text " * 20
    assert label.minimumSizeHint().width() < 100
    assert max(map(len, breakable("/a/" + "b" * 200).split("\u200b"))) <= 24
    assert breakable("plain words stay") == "plain words stay"


def test_events_come_on_the_window_s_thread_and_together() -> None:
    app = application()
    relay = Relay()
    batches: list[list[int]] = []
    threads = set()

    def take(events: list[int]) -> None:
        threads.add(threading.get_ident())
        batches.append(events)

    def work() -> None:
        for number in range(2000):
            relay.post(take, number)
            if not number % 10:
                time.sleep(0.002)

    workers = [threading.Thread(target=work) for _ in range(2)]
    start = time.monotonic()
    for worker in workers:
        worker.start()
    while sum(map(len, batches)) < 4000:
        app.processEvents()
        assert time.monotonic() - start < 20
    took = time.monotonic() - start
    for worker in workers:
        worker.join()
    assert threads == {threading.get_ident()}
    assert len(batches) <= 2 + took / 0.03
    for first in (0, 1):  # of each worker in its order
        assert sorted(n for batch in batches for n in batch)[first::2] == list(range(2000))
    relay.close()
    relay.post(take, -1)
    app.processEvents()
    assert not any(-1 in batch for batch in batches)


def test_what_a_background_thread_raises_comes_too() -> None:
    app = application()
    relay = Relay()
    found: list[object] = []
    relay.in_background(lambda: Path("/nowhere/at all").read_text(), found.extend)
    end = time.monotonic() + 10
    while not found:
        app.processEvents()
        assert time.monotonic() < end
    assert isinstance(found[0], FileNotFoundError)
    relay.close()


def test_the_transcript_is_written_in_pieces() -> None:
    app = application()
    transcript = Transcript()
    transcript.resize(600, 400)
    transcript.show()
    long = "words " * 20_000
    transcript.show_turns([Said("a line", ("a.pdf",), long, "below it"), Said("the next")])
    rounds = 0
    while not transcript.is_written:
        app.processEvents()
        rounds += 1
    assert rounds > 3  # the window had its turn in between
    text = transcript.text.toPlainText()
    assert text.index("a line") < text.index("with a.pdf") < text.index("words words")
    assert text.index("words words") < text.index("below it") < text.index("the next")
    removed: list[int] = []
    transcript.text.document().contentsChange.connect(lambda at, gone, new: removed.append(gone))
    transcript.append("and ")
    transcript.append("so on\nin two lines")
    while not transcript.is_written:
        app.processEvents()
    assert transcript.text.toPlainText().endswith("and so on\nin two lines")
    assert removed and not any(removed)  # nothing was written again
    assert transcript.last_answer() == "and so on\nin two lines"
    transcript.close()


def test_what_is_remembered(tmp_path: Path) -> None:
    from PySide6.QtCore import QThreadPool

    application()
    file = tmp_path / "settings.ini"
    memory = Memory(str(file))
    assert memory.text("model") == "" and memory.data("place").isEmpty()
    memory.keep(model="/a/b.gguf", theme="dark")
    assert QThreadPool.globalInstance().waitForDone(5000)
    assert Memory(str(file)).text("model") == "/a/b.gguf"
    assert "theme=dark" in file.read_text(encoding="utf-8")
