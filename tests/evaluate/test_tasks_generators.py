"""The tasks: they fit, the answer is where they say, and a seed makes them again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lampe_gguf.errors import LampeError, UsageError
from lampe_gguf.evaluate.tasks.haystack import checked, fill, haystack, insert
from lampe_gguf.evaluate.tasks.item import Item, draw, random_uuid
from lampe_gguf.evaluate.tasks.kv import kv
from lampe_gguf.evaluate.tasks.niah import niah
from lampe_gguf.evaluate.tasks.passkey import passkey

HAY = haystack()


def count(text: str) -> int:
    """Tokens of a stand-in for a tokenizer: words in pieces of five letters, and marks."""
    return 5 + len(re.findall(r"\w{1,5}|[^\w\s]|\n", text))


def make_passkey(length: int, seed: int = 1) -> Iterator[Item]:
    return passkey(length, count, limit=4, seed=seed)


def make_niah(length: int, seed: int = 1) -> Iterator[Item]:
    return niah(length, count, hay=HAY, depths=(0.0, 0.3, 1.0), limit=2, seed=seed)


def make_kv(length: int, seed: int = 1) -> Iterator[Item]:
    return kv(length, count, limit=12, seed=seed)


Make = Callable[..., Iterator[Item]]
MAKERS = [make_passkey, make_niah, make_kv]


def whole(item: Item) -> int:
    return count(item.text + item.prefix) + item.max_tokens


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("length", [400, 3000])
def test_items_fit_and_use_their_budget(make: Make, length: int) -> None:
    for item in make(length):
        slack = 90 if make is make_niah or make is make_kv else 24  # a sentence, a pair
        assert length - slack - length // 100 <= whole(item) <= length, item.id


@pytest.mark.parametrize("make", MAKERS)
def test_a_seed_makes_them_again_and_another_makes_others(make: Make) -> None:
    assert list(make(600)) == list(make(600))
    assert [i.text for i in make(600)] != [i.text for i in make(600, seed=2)]
    assert len({i.id for i in make(600)}) == len(list(make(600)))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("length", [500, 4000])
def test_the_answer_is_in_the_text_at_the_stated_depth(make: Make, length: int) -> None:
    for item in make(length):
        assert item.depth is not None
        at = item.context.index(item.expected[0])
        # to within a sentence, a pair
        assert abs(at / len(item.context) - item.depth) <= 200 / len(item.context), item.id
        assert item.expected[0] not in item.after


@pytest.mark.parametrize("make", [make_passkey, make_niah])
def test_the_next_question_shares_the_text_before_its_needle(make: Make) -> None:
    items = list(make(1500))[:3]
    for one, other in zip(items, items[1:], strict=False):
        assert other.depth is not None and one.depth is not None and other.depth <= one.depth
        shared = next((i for i, (a, b) in enumerate(zip(one.context, other.context, strict=False))
                       if a != b), 0)
        assert shared >= other.depth * len(other.context) - 400


def test_kv_is_an_object_of_uuids_shared_by_ten_questions() -> None:
    items = list(make_kv(2000))
    assert len(items) == 12 and len({i.context for i in items}) == 2
    depths = [i.depth for i in items[:10] if i.depth is not None]
    assert min(depths) < 0.15 and max(depths) > 0.85
    for item in items:
        pairs = json.loads(item.context)
        key = re.search(r'key is "(.*?)"', item.after)
        assert key is not None and pairs[key[1]] == item.expected[0]
        assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", k) for k in pairs)


@pytest.mark.parametrize("length", [300, 450, 900])
def test_no_key_of_an_object_is_asked_for_twice(length: int) -> None:
    items = list(make_kv(length))
    assert len(items) == 12 == len({i.text for i in items})
    assert [i.id for i in items] == [str(i) for i in range(12)]


@pytest.mark.parametrize("make", MAKERS)
def test_too_short_a_length_is_one_sentence(make: Make) -> None:
    with pytest.raises(LampeError, match="greater length"):
        list(make(64))


@pytest.mark.parametrize("unit, budget", [("ab ", 100), ("word " * 30, 5000), ("a ", 100_000)])
def test_filling_comes_close_with_few_counts(unit: str, budget: int) -> None:
    calls = []

    def counted(text: str) -> int:
        calls.append(len(text))
        return count(text)

    n = fill(lambda n: unit * n, counted, budget, "it")
    assert count(unit * n) <= budget
    assert count(unit * (n + max(5, n // 100))) > budget
    assert len(calls) <= 8


@pytest.mark.parametrize("budget", range(50, 400, 7))
def test_filling_never_exceeds_the_budget(budget: int) -> None:
    lumpy = "some words of a sentence, and its end. "
    n = fill(lambda n: lumpy * n, count, budget, "it")
    assert count(lumpy * n) <= budget < count(lumpy * (n + 2))


def test_filling_stops_at_the_most() -> None:
    assert fill(lambda n: "a " * n, count, 10_000, "it", most=7) == 7


def test_checked_goes_down_until_it_fits() -> None:
    assert checked(lambda n: "a " * n, count, 100, 99) == 95
    assert checked(lambda n: "a " * n, count, 100, 50) == 50


def test_needles_stand_in_order_of_their_depths() -> None:
    text = insert(["aa."] * 10, [(1.0, "END"), (0.0, "BEGIN"), (0.5, "MIDDLE")])
    assert text.startswith("BEGIN aa.") and text.endswith("aa. END")
    assert text.split().index("MIDDLE") == 6


def test_a_haystack_is_sentences_begun_anew_at_its_end() -> None:
    made = haystack("One. Two!\nThree?\n\n  Four")
    assert made.sentences == ("One.", "Two!", "Three?", "Four")
    assert made.take(3, 3) == ["Four", "One.", "Two!"]
    assert max(map(len, haystack("x" * 1000).sentences)) == 300
    with pytest.raises(UsageError, match="no sentences"):
        haystack(" \n ")


def test_draws_depend_on_what_they_are_for() -> None:
    assert draw(1, "a").random() == draw(1, "a").random() != draw(1, "b").random()
    value: Any = random_uuid(draw(1))
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
                        value)
