"""Questions about many documents: where what answers them stands, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import call, tiny_config

from lampe_gguf.errors import LampeError, UsageError
from lampe_gguf.evaluate.tasks.documents import MAX_TOKENS, documents
from lampe_gguf.evaluate.tasks.item import Item
from lampe_gguf.evaluate.tasks.passages import read_passages

Tiny = Callable[..., Path]
RECORDS = [{"question": f"who lives in house {i}", "answers": [f"Person{i}x"],
            "ctxs": [{"title": "Gold", "isgold": True,
                      "text": f"House {i} is where Person{i}x lives. " + "So. " * 9},
                     {"title": "Other", "isgold": False, "text": "Nobody is here."}]}
           for i in range(300)]
PASSAGES = read_passages([("here", each) for each in RECORDS])


def words(text: str) -> int:
    return len(text.split())


def made(length: int = 2000, limit: int = 12, seed: int = 0) -> list[Item]:
    return list(documents(length, words, passages=PASSAGES, limit=limit, seed=seed))


def test_of_the_marked_texts_alone_comes_what_answers() -> None:
    assert len(PASSAGES.single) == 300 and not PASSAGES.several
    assert PASSAGES.texts[7].startswith("Gold\nHouse 7 ") and "Nobody" not in str(PASSAGES.texts)
    unmarked = read_passages([("here", {"question": "q", "answers": ["a"], "ctxs": [
        {"title": "", "text": "One."}, {"text": "Two."}]})])
    assert unmarked.several[0].passages == ("One.", "Two.")
    with pytest.raises(LampeError, match="no question about passages"):
        read_passages([("here", {"question": "q", "answers": ["a"], "ctxs": [{"title": "t"}]})])


def test_questions_stand_evenly_over_one_text_that_answers_each() -> None:
    items = made()
    context = items[0].context
    assert len(items) == 12 and {item.context for item in items} == {context}
    assert 0.9 * 2000 < words(context) and words(items[0].text) + MAX_TOKENS <= 2000
    told = context.split("\n\n")
    assert all(text.startswith(f"Document {i}: Gold\nHouse ") for i, text in enumerate(told, 1))
    assert len(set(told)) == len({text.split("\n")[1] for text in told}) == len(told)
    for i, item in enumerate(items):
        assert item.depth is not None
        assert item.expected[0] in told[round(item.depth * len(told))]
        assert sum(item.expected[0] in text for text in told) == 1
        assert item.depth == pytest.approx((i + 0.5) / 12, abs=1 / len(told))
        number = item.expected[0].removeprefix("Person").removesuffix("x")
        assert item.after.endswith(f"who lives in house {number}")


def test_a_seed_draws_other_documents() -> None:
    assert made() == made()
    one, other = (made(seed=seed)[0].context.split("\n\n") for seed in (0, 1))
    same = sum(a[a.index("\n"):] == b[b.index("\n"):] for a, b in zip(one, other, strict=False))
    assert same < len(one) / 4


def test_too_much_and_too_little_are_one_sentence() -> None:
    with pytest.raises(LampeError, match="give a greater length"):
        made(length=70)
    with pytest.raises(LampeError, match="300 passages do not fill 9,000 tokens"):
        made(length=9000)
    none = read_passages([("here", {"question": "q", "answers": ["a"], "context": ["b", "c"]})])
    with pytest.raises(UsageError, match="no question that one of them answers"):
        list(documents(2000, words, passages=none))


def test_the_command(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny("m.gguf", window=128, lampe=tiny_config(
        window=128, local_window=16, max_mapping_length=64.0, context_length=8192))
    passages = tmp_path / "nq.jsonl"
    passages.write_text("".join(json.dumps(each) + "\n" for each in RECORDS))
    command = ["eval", "documents", model, "--qa-passages", passages, "--lengths", "1500",
               "--limit", "4", "--raw"]
    done = call(*command, "--read-with", "lampe", "--methods", "lampe,64/16")
    assert done.returncode == 0 and done.stdout.count("of 4") == 2, done.stderr
    assert "4th" in done.stdout
    done = call("eval", "documents", model, "--lengths", "1500")
    assert done.returncode == 2 and "--qa-passages" in done.stderr
