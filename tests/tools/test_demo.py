"""The demonstration: what each way is given, what it is told, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import demo
import numpy as np
import pytest
from conftest import tiny_config

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.backend.vocabulary import vocabulary
from lampe_gguf.evaluate.perplexity import score, summary
from lampe_gguf.evaluate.tasks.item import Item
from lampe_gguf.evaluate.tasks.needles import needles
from lampe_gguf.evaluate.tasks.prompting import Prompter

Tiny = Callable[..., Path]
LENGTH, WINDOW = 3200, 1200
TEXT = " ".join(f"Sentence {i} says nothing." for i in range(400))


@pytest.fixture
def model(tiny: Tiny) -> Path:
    return tiny("m.gguf", window=WINDOW, lampe=tiny_config(
        window=WINDOW, local_window=64, max_mapping_length=600.0, context_length=4096))


def test_every_way_gets_the_same_questions(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Item, int]] = []

    def answered(llm: LampeLlama, prompt: Any, most: int) -> tuple[str, int]:
        said = llm.detokenize(prompt.tolist()).decode()
        with vocabulary(model) as vocab:
            items = list(needles(LENGTH, Prompter(vocab, True).count, text=TEXT))
        item, = (each for each in items if said.endswith(each.after))
        told.append((item, len(prompt)))
        return f" {item.expected[0]}. The" if item.expected[0] in said else " 12.", 0

    monkeypatch.setattr(demo, "answer", answered)
    plain, cut, lampe = demo.compare(model, TEXT, LENGTH)
    assert [len(way.found) for way in (plain, cut, lampe)] == [20, 20, 20]
    assert plain.found == lampe.found == [True] * 20
    # what the window does not hold is cut off, and the rest is seen
    seen = cut.found.index(True)
    assert cut.found == [None] * seen + [True] * (20 - seen)
    assert seen == pytest.approx(20 * (1 - WINDOW / LENGTH), abs=1.5)
    assert all(size <= (WINDOW if 20 <= i < 40 else LENGTH) for i, (_, size) in enumerate(told))
    assert plain.perplexity != lampe.perplexity
    assert [way.n_cut for way in (plain, lampe)] == [0, 0]
    # of a passage that the window has a part of, the model has read something
    assert cut.n_cut == pytest.approx(20 * (1 - WINDOW / LENGTH), abs=1.5)


def test_the_perplexity_is_of_the_texts_end(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SCORED", 100)
    with LampeLlama(model, n_ctx=1024) as llm:
        tokens = llm.tokenize(TEXT.encode())[:900]
        whole = score(llm, tokens)
        told: list[int] = []
        llm.reset()
        found = demo.read_all(llm, tokens, told.append)
        assert found == pytest.approx(float(np.exp(whole[-100:].mean())), rel=1e-4)
        assert told == sorted(told) and told[-1] == 900
        assert summary(whole, 0)["all"] != pytest.approx(found)


def test_what_is_known_of_a_passage(model: Path) -> None:
    with LampeLlama(model, lampe=False, n_ctx=1024) as llm:
        tokens = llm.tokenize(TEXT.encode())[:900]
        read, between, passage = tokens[:400], tokens[600:603], tokens[100:164]
        # half of it as the model says it: one with random weights never says what a text does
        said = llm.generate([*read, *between, *passage[:16]], temp=0.0)
        passage[16:40] = [token for _, token in zip(range(24), said, strict=False)]
        llm.reset()
        llm.eval(read)
        found = [demo.share_known(llm, 400, between, passage) for _ in range(2)]
        llm.reset()
        fed = [*read, *between, *passage]
        best = np.concatenate([logits.argmax(axis=1) for _, logits in llm.read_logits(fed)])
    right = [best[400 + 3 + i - 1] == passage[i] for i in range(16, 64)]
    assert found == [np.mean(right)] * 2
    assert 0 < found[0] < 1, "a share that says nothing tests nothing"


def ways_of(plain: list[float], cut: list[float], lampe: list[float]) -> list[demo.Way]:
    return [demo.Way("plain RoPE", [False, None, True], plain, 0, 783.25, 61.0),
            demo.Way("the last 8 tokens", [None, None, True], cut, 2, 9.51, 30.0),
            demo.Way("LaMPE", [True, True, True], lampe, 0, 9.3, 9)]


def test_how_it_is_shown() -> None:
    ways = ways_of([0.1, 0.7, 0.4], [0.2, 0.3, 1.0], [0.6, 0.9, 0.75])
    assert demo.marks_for("utf-8") == "●○·"
    for encoding in ("ascii", "cp1252", None, "nonsense"):
        assert demo.marks_for(encoding) == "*o."
    shown = demo.report(ways, "*o.")
    assert "  plain RoPE         o * o   40% of the tokens\n" in shown
    assert "  LaMPE              * * *   75% of the tokens\n" in shown
    assert "  plain RoPE         o . *   1 of 3\n" in shown
    assert "  LaMPE              * * *   3 of 3\n" in shown
    assert "tokens: 783.25" in shown and shown.isascii()
    assert max(map(len, shown.splitlines())) <= 100
    # what was lost and what it costs comes first; the end is what a reader is left with
    assert shown.index("1 of 3") < shown.index("tokens: 783.25") < shown.index("40% of the tokens")
    assert " ".join(shown.rpartition("\n\n")[2].split()) == demo.sum_up(ways)


def test_the_sentence_at_the_end_says_what_was_measured() -> None:
    assert demo.sum_up(ways_of([0.0, 0.1, 0.2], [0.3, 0.4, 1.0], [0.7, 0.9, 0.75])) == (
        "Of the 2 passages that the window cut off, LaMPE goes on rightly with 80% of the tokens, "
        "the last 8 tokens alone with 35% and plain RoPE with 5%; of the other 1, 75%, 100% and "
        "20%.")
    # as good is no better, whichever of the two it is as good as
    for plain, cut in ([0.1, 0.3], [0.8, 0.8]), ([0.8, 0.8], [0.1, 0.3]):
        said = demo.sum_up(ways_of([*plain, 0.0], [*cut, 0.0], [0.7, 0.9, 1.0]))
        assert said.startswith("LaMPE is no better here: of the 2 passages that the window cut ")
        assert "with 80% of the tokens" in said and "with 20%" in said
    # where nothing was cut off, nothing is told of it
    plain, _, lampe = ways_of([0.0, 0.1], [], [0.7, 0.9])
    assert demo.sum_up([plain, lampe]) == (
        "Of all 2 passages, LaMPE goes on rightly with 80% of the tokens and plain RoPE with 5%.")
