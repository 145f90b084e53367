"""Records of L-Eval, LongBench and InfiniteBench: recognised, asked and scored by their rules."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_config

from lampe_gguf.errors import LampeError
from lampe_gguf.evaluate.tasks.external import place, read_items
from lampe_gguf.evaluate.tasks.external_rules import INFINITEBENCH, LONGBENCH, leval_rule
from lampe_gguf.evaluate.tasks.item import Item
from lampe_gguf.evaluate.tasks.scoring import METRICS, score

LEVAL = {"instructions": ["Which? A. x B. y", "And which? A. x B. y C. z"],
         "outputs": ["B", "AC"], "input": "A long lecture.", "source": "Coursera",
         "evaluation": "exam"}
LONG = {"input": "Who wrote it?", "context": "A long story.", "answers": ["Ann", "Ann B."],
        "dataset": "hotpotqa_e", "all_classes": None, "_id": "x1", "length": 9, "language": "en"}
INFINITE = {"id": 7, "context": "A book.", "input": "Who?", "answer": ["the cat"],
            "options": ["a dog", "the cat", "a cow", "a fox"]}


def items(record: dict[str, Any], source: str = "file.jsonl") -> list[Item]:
    return read_items([("line 1", record)], source)


def test_leval_has_a_question_for_each_instruction() -> None:
    first, second = items(LEVAL, "coursera.jsonl")
    assert first.context == second.context == "A long lecture."
    assert "Which? A. x" in first.after and second.id == "0.1"
    assert second.expected == ("AC",) and first.task == "L-Eval coursera"
    assert [score(second, answer) for answer in ("A, C", "A", "AB", "")] == [1, 0.25, 0, 0]


@pytest.mark.parametrize("evaluation, source, output, right, wrong", [
    ("exam", "tpo", "B. the cat", "B, because of A", "C, or B"),
    ("exam", "quality", "(B) the cat", "B", "(A) the cat"),
    ("exam", "gsm100", "So 5 * 2 = 10. The answer is 1,010.", "5, hence 1010.", "1010 - 5"),
    ("exam", "sci_fi", "True [fact: False]", "True. [fact: false]", "False [fact: True]"),
    ("exam", "codeU", "c d", "It is cd.", "dc"),
    ("f1", "narrative_qa", "red fox", "the red fox", "nothing"),
    ("LLM", "paper", "all of it", "all of it", "nothing"),
    ("rouge", "news", "all of it", "all of it", "nothing"),
])
def test_leval_rules(evaluation: str, source: str, output: str, right: str, wrong: str) -> None:
    record = {**LEVAL, "instructions": ["Do."], "outputs": [output], "source": source,
              "evaluation": evaluation}
    (item,) = items(record, f"{source}.jsonl")
    assert score(item, right) == 1 and score(item, wrong) == 0


def test_loyalty_and_fact_count_half_each() -> None:
    (item,) = items({**LEVAL, "instructions": ["?"], "outputs": ["True [fact: False]"]})
    assert score(item, "True [fact: True]") == score(item, "It is true.") == 0.5


def test_longbench_by_its_dataset() -> None:
    (item,) = items(LONG)
    assert (item.task, item.id, item.metric, item.max_tokens) == (
        "LongBench hotpotqa", "x1", "f1", 32)
    assert item.chat and "Who wrote it?" in item.after and score(item, "Ann B") == 1
    (item,) = items({**LONG, "dataset": "trec", "answers": ["city"],
                     "all_classes": ["city", "food"]})
    assert not item.chat and score(item, "city\nfood") == 1 and score(item, "food") == 0
    (item,) = items({**LONG, "dataset": "lcc", "answers": ["return x"], "input": ""})
    assert not item.chat and score(item, "return x\n}") == 1
    (item,) = items({**LONG, "dataset": "passage_retrieval_en", "answers": ["Paragraph 3"]})
    assert score(item, "Paragraph 3, not 4") == 0.5


def test_infinitebench_by_options_and_by_the_files_name() -> None:
    (item,) = items(INFINITE)
    assert item.expected == ("B", "the cat") and "B. the cat" in item.after and item.id == "7"
    assert [score(item, text) for text in ("B. the cat", "The cat.", "C")] == [1, 1, 0]
    plain = {**INFINITE, "options": []}
    for name, answer, right, wrong in (
        ("passkey", "71432", "71432 it is", "7143"),
        ("kv_retrieval", "ab-12", 'the value is "ab-12"', "ab-1"),
        ("longdialogue_qa_eng", ["ANN"], "It is Ann.", "Anna"),
        ("math_find", [12.5], "12.5", "12"),
        ("code_run", [-3], "It returns -3", "3"),
        ("longbook_qa_eng", ["red fox"], "a red fox", "x"),
    ):
        (item,) = items({**plain, "answer": answer}, f"/data/{name}.jsonl")
        assert item.task == f"InfiniteBench {name}"
        assert score(item, right) == 1 and score(item, wrong) == 0, name
    (item,) = items({**plain, "answer": [1, 2, 3, 4]}, "math_calc.jsonl")
    assert score(item, "1, 2, 7") == 0.5


def test_chinese_is_compared_by_characters() -> None:
    (item,) = items({**LONG, "dataset": "vcsum", "answers": ["\u5317\u4eac\u5e02"]})
    assert score(item, "\u5317\u5e02\u3002") == pytest.approx(2 * 2 / 5)


def test_every_rule_has_its_metric() -> None:
    rules = [*LONGBENCH.values(), *INFINITEBENCH.values(), leval_rule("human", "x", "y")]
    for rule in rules:
        assert rule.metric.removesuffix("_line") in {*METRICS, "classified"}


@pytest.mark.parametrize("record, words", [
    ({"question": "q"}, "line 1 is in none of the formats"),
    ({**LEVAL, "outputs": ["B"]}, "fields of the wrong kind for leval"),
    ({**LONG, "answers": []}, "fields of the wrong kind for longbench"),
    ({**INFINITE, "answer": ["a bird"]}, "fields of the wrong kind for infinitebench"),
])
def test_other_records_are_refused(record: dict[str, Any], words: str) -> None:
    with pytest.raises(LampeError, match=words):
        items(record)


def test_an_item_gets_the_power_of_two_that_holds_it() -> None:
    def lengths(n: int, longest: int | None = None) -> list[int]:
        (item,) = items({**LONG, "context": "x" * n})
        return [each.length for each in place([item], len, longest)]

    rest = len(items({**LONG, "context": ""})[0].text) + len(" Answer:") + 32 + 8
    assert lengths(10) == [1024]
    assert lengths(2048 - rest) == [2048] and lengths(2048 - rest + 1) == [4096]
    assert lengths(5000, 4096) == [] and lengths(5000, 6000) == [6000]
    assert lengths(3000 - rest, 3000) == [3000] and lengths(3001 - rest, 3000) == []


def test_a_file_is_asked_and_the_shared_text_read_once(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    model = tiny("m.gguf", window=512, lampe=tiny_config(window=512, context_length=1024))
    path = tmp_path / "kv_retrieval.jsonl"
    records = [LEVAL, {**LEVAL, "input": "word " * 900}]
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    base = [sys.executable, "-m", "lampe_gguf.cli.main", "eval", "tasks", str(model), "--jsonl",
            str(path), "--max-length", "1024"]
    done = subprocess.run([*base, "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "2 of 4 questions need more than 1,024 tokens" in done.stderr
    found = json.loads(done.stdout)
    assert [(c["method"], c["length"], c["n"]) for c in found["cells"]] == [
        ("lampe", 1024, 2), ("truncate", 1024, 2)]
    first, second = found["results"][:2]
    assert first["read"] == first["prompt_tokens"] and second["read"] < second["prompt_tokens"] / 2
    other = tmp_path / "tpo.jsonl"
    other.write_text(json.dumps(LEVAL), encoding="utf-8")
    done = subprocess.run([*base, "--jsonl", str(other), "--limit", "1", "--methods", "lampe",
                           "--json"], capture_output=True, text=True, timeout=120)
    assert {r["task"] for r in json.loads(done.stdout)["results"]} == {
        "L-Eval kv_retrieval", "L-Eval tpo"}
    path.write_text(json.dumps(records[1]), encoding="utf-8")
    done = subprocess.run(base, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "no question left to ask of" in done.stderr
