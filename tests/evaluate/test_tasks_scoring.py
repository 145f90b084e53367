"""Scores and intervals against values worked out by hand."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from lampe_gguf.errors import LampeError
from lampe_gguf.evaluate.tasks import scoring
from lampe_gguf.evaluate.tasks.intervals import bootstrap, wilson
from lampe_gguf.evaluate.tasks.item import Item


@pytest.mark.parametrize("metric, answer, expected, score", [
    ("exact", "The  Red, fox!", ["a red fox"], 1),
    ("exact", "red foxes", ["red fox"], 0),
    ("contains", "It is 12345.", ["12345"], 1),
    ("contains", "It is 1234", ["12345"], 0),
    ("contains", "PARIS, of course", ["London", "Paris"], 1),
    ("recall", "Values: 11, 22 and 44", ["11", "22", "33", "44"], 0.75),
    ("f1", "the cat sat", ["cat sat down"], 2 * (2 / 2) * (2 / 3) / (2 / 2 + 2 / 3)),
    ("f1", "a b", ["x y", "b c d"], 0.5),  # "a" is an article; best: 1/1 and 1/3
    ("f1", "nothing", ["else"], 0),
    ("f1", "x x y", ["x y y"], 2 / 3),
    ("f1_characters", "\u5317\u4eac\u3002", ["\u5317\u4eac\u5e02"], 0.8),
    ("letters", "B. Because of A.", ["AB"], 1),
    ("letters", "B", ["AB"], 0),
    ("letters", "The answer is (C).", ["C"], 1),
    ("letters", "ACD", ["ACD"], 1),
    ("letters", "A good reason is D", ["D"], 1),
    ("letters", "Because", ["B"], 0),
    ("first_letter", "Answer: C, not B", ["C", "the cat"], 1),
    ("first_letter", "it was the cat", ["C", "the cat"], 1),
    ("first_letter", "it was the dog", ["C", "the cat"], 0),
    ("first_number", "about 1,024 or 7", ["1024"], 1),
    ("first_number", "7 or 1024", ["1024"], 0),
    ("last_number", "2 + 2 = 4.", ["4"], 1),
    ("last_number", "4 = 2 + 2.", ["4"], 0),
    ("last_number", "none", ["4"], 0),
    ("numbers", "[1, 2, 9, 4]", ["1", "2", "3", "4"], 0.5),
    ("numbers", "[01, -0, -2, " + "7" * 5000, ["1", "0", "-2", "4"], 0.75),
    ("share_of_numbers", "Paragraph 3 or 12", ["Paragraph 3"], 0.5),
    ("share_of_numbers", "Paragraph 13", ["Paragraph 3"], 0),
    ("similarity", "# a comment\nreturn x\nmore", ["return x"], 1),
    ("similarity", "abcd", ["bcde"], 0.75),
    ("any_word", "It's JOHN.", ["John", "Mary"], 1),
    ("any_word", "Johnson", ["John"], 0),
])
def test_metrics(metric: str, answer: str, expected: list[str], score: float) -> None:
    assert scoring.METRICS[metric](answer, expected) == pytest.approx(score)


def test_rouge_is_the_longest_common_subsequence() -> None:
    # of 4 and 5 words, 3 in common and in order
    value = scoring.rouge("the cat sat here", ["the cat quietly sat down"])
    assert value == pytest.approx(2 * 3 / (4 + 5))
    assert scoring.rouge("x", ["y", "x"]) == 1
    assert scoring.rouge_sum("b c\na", ["a\nb c"]) == 1  # lines in any order


def test_rouge_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("rouge_score"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(scoring, "_SCORERS", {})
    with pytest.raises(LampeError, match=r"-m pip install .lampe-gguf\[eval\]"):
        scoring.rouge("a", ["a"])


def test_classes_named_and_those_within_the_right_one() -> None:
    classes = ["food", "fast food", "city", "person"]
    assert scoring.classified("fast food", ["fast food"], classes) == 1
    assert scoring.classified("a city or a person", ["city"], classes) == 0.5
    assert scoring.classified("person", ["city"], classes) == 0


def test_an_item_is_scored_by_its_own_metric() -> None:
    def item(metric: str) -> Item:
        return Item("t", "1", 9, "", "", "", ("city",), metric, 9, classes=("city", "food"))

    assert scoring.score(item("contains"), "x\nCity") == 1
    assert scoring.score(item("classified"), "food\ncity") == 0.5
    assert scoring.score(item("classified_line"), "\ncity\nfood") == 1
    assert scoring.score(item("f1_line"), "a city\nfood") == 1


def test_wilsons_interval() -> None:
    # 8 of 10, by the formula and as tables have it
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1), abs=1e-4)
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == 1
    assert wilson(0, 0) == (0, 1)


def test_bootstrap_covers_the_mean_and_follows_the_seed() -> None:
    scores = [0.0, 0.5, 1.0, 0.5] * 25
    low, high = bootstrap(scores, seed=1)
    # standard error 0.3536 / 10
    assert low == pytest.approx(0.5 - 1.96 * 0.03536, abs=0.012)
    assert high == pytest.approx(0.5 + 1.96 * 0.03536, abs=0.012)
    uneven = [i * i / 900 for i in range(30)]
    assert bootstrap(uneven, 1) == bootstrap(uneven, 1) != bootstrap(uneven, 2)
    assert bootstrap([0.3], seed=1) == (0, 1)
