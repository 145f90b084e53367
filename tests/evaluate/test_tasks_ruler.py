"""RULER's tasks: what the paper says of each holds of the items made."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_tasks_generators import HAY, count, whole

from lampe_gguf.errors import LampeError, UsageError
from lampe_gguf.evaluate.tasks.item import Item
from lampe_gguf.evaluate.tasks.passages import read_passages
from lampe_gguf.evaluate.tasks.records import read_records
from lampe_gguf.evaluate.tasks.ruler import QA_TASKS, TASKS, ruler

SQUAD = [{"question": f"Who is {i}?", "context": f"Passage {i}. " + "So it is said. " * 20,
          "answers": {"text": [f"Person {i}", f"Person {i}"]}} for i in range(40)]
HOTPOT = [{"question": f"Where was {i}?", "answer": f"Town {i}",
           "context": [[f"T{i}", ["First. ", "Second."]], [f"U{i}", ["Third."]]]}
          for i in range(5)]
PASSAGES = read_passages([("here", each) for each in [*SQUAD, *HOTPOT]])


def make(task: str, length: int = 2000, seed: int = 1, limit: int = 2) -> list[Item]:
    return list(ruler(length, count, hay=HAY, tasks=(task,), passages=PASSAGES, limit=limit,
                      seed=seed))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("length", [1500, 6000])
def test_items_fit_and_hold_their_answers(task: str, length: int) -> None:
    items = make(task, length)
    assert len(items) == 2 and items == make(task, length)
    assert items[0].text != make(task, length, seed=2)[0].text
    for item in items:
        assert whole(item) <= length
        if task not in QA_TASKS or length < 2000:  # there are not passages enough for more
            # text comes in whole pieces, and how long they are depends on Python's version
            assert whole(item) >= 0.75 * length
        if task not in QA_TASKS:
            assert all(each in item.context for each in item.expected)
        if item.depth is not None:
            at = item.context.index(item.expected[0]) / len(item.context)
            assert abs(at - item.depth) < 250 / len(item.context)
        assert item.metric == ("contains" if task in QA_TASKS else "recall")


@pytest.mark.parametrize("task, expected, needles, kinds", [
    ("niah_single_1", 1, 1, "numbers"), ("niah_single_2", 1, 1, "numbers"),
    ("niah_single_3", 1, 1, "uuids"), ("niah_multikey_1", 1, 4, "numbers"),
    ("niah_multivalue", 4, 4, "numbers"), ("niah_multiquery", 4, 4, "numbers"),
    ("niah_multikey_2", 1, 20, "numbers"), ("niah_multikey_3", 1, 10, "uuids"),
])
def test_needles_are_as_many_as_the_paper_says(
    task: str, expected: int, needles: int, kinds: str
) -> None:
    for item in make(task):
        found = re.findall(r"special magic (\w+) for (\S+) is: (\S+)\.", item.context)
        assert len(item.expected) == len(set(item.expected)) == expected
        assert len(found) == needles if needles < 10 else len(found) >= needles
        assert {kind for kind, _, _ in found} == {kinds}
        asked = {key for _, key, value in found if value in item.expected}
        assert all(key in item.after and key in item.prefix for key in asked)
        assert not any(key in item.after for _, key, _ in found if key not in asked)
        assert len(asked) == (4 if task == "niah_multiquery" else 1)


def test_needles_lie_in_what_the_paper_says() -> None:
    assert "The grass is green." in make("niah_single_1")[0].context
    assert "The grass is green." not in make("niah_single_2")[0].context
    rest = re.sub(r"One of the special magic uuids for \S+ is: \S+\.", "",
                  make("niah_multikey_3")[0].context)
    assert not rest.strip()


def test_a_chain_of_variables_can_be_followed() -> None:
    for item in make("vt"):
        known: list[str] = []
        value = re.search(r"the value (\d+)", item.after)
        assert value is not None
        for name, source in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)\.", item.context):
            if source == (known[-1] if known else value[1]):
                known.append(name)
        assert tuple(known) == item.expected and len(known) == 5
        assert not any(name in item.before for name in known)  # of the example


@pytest.mark.parametrize("length, often, seldom", [(2000, 10, 1), (6000, 30, 3)])
def test_common_words_are_the_most_common(length: int, often: int, seldom: int) -> None:
    for item in make("cwe", length):
        numbered = re.findall(r"(\d+)\. (\S+)", item.context)
        assert [int(n) for n, _ in numbered] == list(range(1, len(numbered) + 1))
        words = Counter(word for _, word in numbered)
        top = words.most_common(11)
        assert {word for word, _ in top[:10]} == set(item.expected)
        assert {n for _, n in top[:10]} == {often} and top[10][1] == seldom
        assert not any(each in word for each in item.expected for word in words
                       if word != each)


def test_frequent_words_follow_their_distribution() -> None:
    for item in make("fwe", 6000):
        found = Counter(item.context.split())
        ranked = found.most_common()
        assert ranked[0][0] == "..." and tuple(word for word, _ in ranked[1:4]) == item.expected
        total = sum(found.values())
        assert ranked[1][1] == pytest.approx(total / (1.64493 * 4), abs=1)
        assert ranked[3][1] == pytest.approx(total / (1.64493 * 16), abs=1)
        assert ranked[3][1] > ranked[4][1]


def test_questions_come_with_their_passages_and_others() -> None:
    for task, first in (("qa_1", SQUAD[0]), ("qa_2", HOTPOT[0])):
        item = make(task, 1500)[0]
        assert str(first["question"]) in item.after
        assert "Passage 0." in item.context if task == "qa_1" else "T0\nFirst. Second." in (
            item.context)
        numbers = re.findall(r"Document (\d+):", item.context)
        assert [int(n) for n in numbers] == list(range(1, len(numbers) + 1)) and len(numbers) > 5
    assert make("qa_1")[0].expected == ("Person 0",)
    assert len(make("qa_2", limit=9)) == 5  # there are no more
    with pytest.raises(UsageError, match="--qa-passages"):
        list(ruler(2000, count, hay=HAY, tasks=("qa_1",), limit=1, seed=1))
    one = read_passages([("here", each) for each in SQUAD])
    asked: dict[str, Any] = {"hay": HAY, "passages": one, "limit": 99, "seed": 1}
    assert len(list(ruler(2000, count, tasks=("qa_1",), **asked))) == len(SQUAD)
    with pytest.raises(UsageError, match="no question for qa_2"):
        list(ruler(2000, count, tasks=("qa_2",), **asked))


@pytest.mark.parametrize("task", TASKS)
def test_too_short_a_length_is_one_sentence(task: str) -> None:
    with pytest.raises(LampeError, match=f"RULER's {task} needs .* greater length"):
        make(task, 80)


@pytest.mark.parametrize("record", [
    {"question": "q", "context": "c"}, {"question": 1, "context": "c", "answers": ["a"]},
    {"question": "q", "context": {"title": "x"}, "answers": ["a"]},
    {"question": "q", "context": " ", "answers": ["a"]},
])
def test_other_records_are_refused(record: dict[str, Any]) -> None:
    with pytest.raises(LampeError, match="line 3 is no question about passages"):
        read_passages([("line 3", record)])


def test_hotpot_as_columns_and_plain_lists() -> None:
    found = read_passages([
        ("1", {"question": "q", "answer": "a",
               "context": {"title": ["T", "U"], "sentences": [["x ", "y"], ["z"]]}}),
        ("2", {"question": "q", "answers": ["a", "b"], "passages": ["one"]}),
    ])
    assert found.several[0].passages == ("T\nx y", "U\nz")
    assert found.single[0].answers == ("a", "b") and found.texts == ("T\nx y", "U\nz", "one")


def test_lines_that_are_no_records_are_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"a": "b\u2028c"}, ensure_ascii=False) + "\n\n[1]\n",
                    encoding="utf-8")
    with pytest.raises(LampeError, match="line 3 of .* is not a JSON object"):
        list(read_records(str(path)))
    path.write_text('{"a": 1}\n{"b"\n')
    with pytest.raises(LampeError, match="line 2 of"):
        list(read_records(str(path)))
