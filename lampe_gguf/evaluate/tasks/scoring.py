"""How much of an answer is right, 0 ... 1.

Own code after the definitions of RULER (substrings), SQuAD (normalising, F1), LongBench and
InfiniteBench (which text of an answer counts); ROUGE is the library rouge-score's.
"""

from __future__ import annotations

import difflib
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import LampeError, how_to_add
from .item import Item

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case, without punctuation and articles, single spaces (SQuAD)."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact(answer: str, expected: Sequence[str]) -> float:
    """1 if the answer is one of those expected, once both are normalised."""
    return float(normalised(answer) in [normalised(each) for each in expected])


def contains(answer: str, expected: Sequence[str]) -> float:
    """1 if the answer holds one of those expected, in any case (RULER's rule for questions)."""
    return float(any(each.lower() in answer.lower() for each in expected))


def recall(answer: str, expected: Sequence[str]) -> float:
    """The share of those expected that the answer holds, in any case (RULER's rule)."""
    return sum(each.lower() in answer.lower() for each in expected) / len(expected)


def f1(answer: str, expected: Sequence[str]) -> float:
    """The best F1 over words, normalised, that the answer has with one of those expected."""
    return max(_f1(normalised(answer).split(), normalised(each).split()) for each in expected)


def f1_characters(answer: str, expected: Sequence[str]) -> float:
    """F1 over characters, for languages that put no space between words."""

    def characters(text: str) -> list[str]:
        return [each for each in text.lower() if each.isalnum()]

    return max(_f1(characters(answer), characters(each)) for each in expected)


def _f1(found: list[str], wanted: list[str]) -> float:
    same = sum((Counter(found) & Counter(wanted)).values())
    if not same:
        return 0.0
    precision, share = same / len(found), same / len(wanted)
    return 2 * precision * share / (precision + share)


_SCORERS: dict[str, Any] = {}


def rouge(answer: str, expected: Sequence[str], kind: str = "rougeL") -> float:
    """The best F-measure of ROUGE with one of those expected; LampeError without rouge-score."""
    if kind not in _SCORERS:
        try:
            from rouge_score.rouge_scorer import RougeScorer
        except ImportError:
            raise LampeError(
                "summaries are scored with rouge-score, which is not installed; "
                f"{how_to_add('eval')}"
            ) from None
        _SCORERS[kind] = RougeScorer([kind], use_stemmer=False)
    scorer = _SCORERS[kind]
    return max(float(scorer.score(each, answer)[kind].fmeasure) for each in expected)


def rouge_sum(answer: str, expected: Sequence[str]) -> float:
    """ROUGE-L over a summary's lines."""
    return rouge(answer, expected, "rougeLsum")


def choice(answer: str) -> str:
    """The letters that an answer chooses, in order: "B" of "B. the letter", "AC" of "A and C".

    Capitals that stand alone; where there is none, those that the answer begins with.
    """
    alone = re.findall(r"(?<![A-Za-z'’])[A-H](?![A-Za-z'’])", answer)
    if not alone:
        begun = re.match(r"\s*([A-H]{1,8})(?![a-z])", answer)
        alone = list(begun.group(1)) if begun else []
    # "A" that begins a sentence is an article, unless it is all there is
    if len(alone) > 1 and re.match(r"\s*A [a-z]", answer) and not re.match(r"\s*A and ", answer):
        alone = alone[1:]
    return "".join(sorted(set(alone)))


def letters(answer: str, expected: Sequence[str]) -> float:
    """1 if the answer chooses exactly the expected letters."""
    return float(choice(answer) in ["".join(sorted(set(each))) for each in expected])


def first_letter(answer: str, expected: Sequence[str]) -> float:
    """1 if the first letter that the answer chooses, or its text, is right.

    expected  the letter, then the option's text (InfiniteBench)
    """
    found = re.search(r"(?<![A-Za-z'’])[A-D](?![A-Za-z'’])", answer)
    if found:
        return float(found.group() == expected[0])
    return contains(answer, expected[1:]) if len(expected) > 1 else 0.0


def first_number(answer: str, expected: Sequence[str]) -> float:
    """1 if the first number in the answer is the expected one."""
    return _number(answer, expected, 0)


def last_number(answer: str, expected: Sequence[str]) -> float:
    """1 if the last number in the answer is the expected one."""
    return _number(answer, expected, -1)


def _number(answer: str, expected: Sequence[str], which: int) -> float:
    numbers = re.findall(r"-?\d+(?:\.\d+)?", answer.replace(",", ""))
    wanted = [float(each.replace(",", "")) for each in expected if _is_number(each)]
    return float(bool(numbers) and float(numbers[which]) in wanted)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


def _integer(digits: str) -> str:
    """In one way of writing it; int() refuses a run of more than 4,300 digits."""
    size = digits.strip().lstrip("-").lstrip("0") or "0"
    return f"-{size}" if digits.strip().startswith("-") and size != "0" else size


def numbers(answer: str, expected: Sequence[str]) -> float:
    """The share of a row of numbers that is right before the first that is wrong."""
    found = re.findall(r"-?\d+", answer)
    right = 0
    for each, wanted in zip(found, expected, strict=False):
        if _integer(each) != _integer(wanted):
            break
        right += 1
    return right / len(expected)


def share_of_numbers(answer: str, expected: Sequence[str]) -> float:
    """Of the numbers in the answer, the share that is the expected one (LongBench)."""
    found = re.findall(r"\d+", answer)
    wanted = [number for each in expected for number in re.findall(r"\d+", each)]
    return sum(number in wanted for number in found) / len(found) if found else 0.0


def similarity(answer: str, expected: Sequence[str]) -> float:
    """Of the answer's first line of code, how like it is to the expected line (difflib's ratio)."""
    lines = [line for line in answer.lstrip("\n").split("\n")
             if not any(mark in line for mark in ("`", "#", "//"))]
    line = lines[0] if lines else ""
    return max(difflib.SequenceMatcher(None, line, each, False).ratio() for each in expected)


def classified(answer: str, expected: Sequence[str], classes: Sequence[str]) -> float:
    """1 / the number of classes that the answer names, if the right one is among them.

    A class whose name is part of the right one's does not count (LongBench).
    """
    named = [name for name in classes if name in answer]
    right = expected[0]
    named = [name for name in named if name == right or name not in right]
    return 1 / len(named) if right in named else 0.0


def any_word(answer: str, expected: Sequence[str]) -> float:
    """1 if a word of the answer is one of those expected, in any case."""
    words = re.findall(r"\w+", answer.upper())
    return float(any(each.upper() in words for each in expected))


def rouge_characters(answer: str, expected: Sequence[str]) -> float:
    """ROUGE-L over characters, for languages that put no space between words."""

    def longest(one: str, other: str) -> int:
        row = [0] * (len(other) + 1)
        for a in one:
            above = 0
            for i, b in enumerate(other, 1):
                above, row[i] = row[i], above + 1 if a == b else max(row[i], row[i - 1])
        return row[-1]

    found = [each for each in answer.lower() if each.isalnum()]
    best = 0.0
    for text in expected:
        wanted = [each for each in text.lower() if each.isalnum()]
        if found and wanted:
            same = longest("".join(found), "".join(wanted))
            best = max(best, 2 * same / (len(found) + len(wanted)))
    return best


def choice_any(answer: str, expected: Sequence[str]) -> float:
    """1 if the first capital A to D in the answer, wherever it stands, is right (L-Eval)."""
    found = re.search("[A-D]", answer)
    return float(found is not None and found.group() == expected[0])


def choice_all(answer: str, expected: Sequence[str]) -> float:
    """1 if exactly the right letters are chosen, 0.25 if only some of them (L-Eval, Coursera)."""
    chosen, right = set(choice(answer)), set(expected[0])
    if chosen == right:
        return 1.0
    return 0.25 if chosen and chosen < right else 0.0


def contains_unspaced(answer: str, expected: Sequence[str]) -> float:
    """As contains, whatever the spaces (L-Eval)."""
    return contains("".join(answer.split()), ["".join(each.split()) for each in expected])


def loyalty(answer: str, expected: Sequence[str]) -> float:
    """The mean of two: by the document, true or false; and in fact, after "[fact:" (L-Eval)."""

    def verdicts(text: str) -> list[str | None]:
        parts = (text.lower() + "[fact:").split("[fact:")[:2]
        found = [re.search("true|false", part) for part in parts]
        return [None if each is None else each.group() for each in found]

    pairs = zip(verdicts(answer), verdicts(expected[0]), strict=True)
    return sum(one is not None and one == other for one, other in pairs) / 2


Metric = Callable[[str, Sequence[str]], float]

METRICS: dict[str, Metric] = {
    "exact": exact, "contains": contains, "recall": recall, "f1": f1,
    "f1_characters": f1_characters, "rouge": rouge, "rouge_sum": rouge_sum, "letters": letters,
    "first_letter": first_letter, "first_number": first_number, "last_number": last_number,
    "numbers": numbers, "share_of_numbers": share_of_numbers, "similarity": similarity,
    "any_word": any_word, "rouge_characters": rouge_characters, "choice_any": choice_any,
    "choice_all": choice_all, "contains_unspaced": contains_unspaced, "loyalty": loyalty,
}


def score(item: Item, answer: str) -> float:
    """How right the answer is, 0 ... 1, by the item's metric."""
    if item.metric == "classified":
        return classified(answer, item.expected, item.classes)
    if item.metric.endswith("_line"):  # of the answer's first line alone
        first = answer.lstrip("\n").split("\n")[0]
        if item.metric == "classified_line":
            return classified(first, item.expected, item.classes)
        return METRICS[item.metric.removesuffix("_line")](first, item.expected)
    return METRICS[item.metric](answer, item.expected)
