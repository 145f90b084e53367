"""Records of L-Eval, LongBench and InfiniteBench as items: which a record is shows in its fields.

The formats and the rules of scoring are theirs (arXiv 2307.11088, 2308.14508, 2402.13718), the
words of the prompts and the code are not. A record names no length: an item's is the smallest
power of two that holds its prompt and its answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ...errors import LampeError
from .external_rules import INFINITEBENCH, LONGBENCH, Rule, leval_rule
from .item import Count, Item

SHORTEST = 1024
Record = dict[str, Any]


def read_items(records: Iterable[tuple[str, Record]], source: str) -> list[Item]:
    """The items of a file's records, length 0 as yet: place() gives them theirs.

    records  (where it stands, record)
    source   the file's name; InfiniteBench's say which of its tasks they are
    LampeError for a record in none of the three formats.
    """
    stem = Path(source).stem
    items: list[Item] = []
    for number, (where, record) in enumerate(records):
        reader = _reader(record)
        if reader is None:
            raise LampeError(
                f"{where} is in none of the formats that are known; give records of L-Eval (input, "
                "instructions, outputs), LongBench (context, input, answers, dataset) or "
                "InfiniteBench (context, input, answer)"
            )
        try:
            items += reader(record, number, stem)
        except (KeyError, TypeError, ValueError, IndexError):
            raise LampeError(
                f"{where} has fields of the wrong kind for {reader.__name__.strip('_')}; mend the "
                "record, or leave it out"
            ) from None
    return items


def place(items: Iterable[Item], count: Count, longest: int | None = None) -> Iterator[Item]:
    """The same items with their lengths, those of more than `longest` tokens left out.

    Items of one text stay together, so that it is read once.
    """
    for item in items:
        needed = count(item.text + item.prefix) + item.max_tokens + 8  # for the answer's beginning
        length = SHORTEST
        while length < needed:
            length *= 2
        if longest is None or needed <= longest:
            yield dataclasses.replace(item, length=length if longest is None
                                      else min(length, longest))


def _reader(record: Record) -> Callable[[Record, int, str], list[Item]] | None:
    if "instructions" in record and "outputs" in record and "input" in record:
        return _leval
    if "context" in record and "input" in record and "answers" in record:
        return _longbench
    if "context" in record and "input" in record and "answer" in record:
        return _infinitebench
    return None


def _leval(record: Record, number: int, stem: str) -> list[Item]:
    text, source = str(record["input"]), str(record.get("source") or stem)
    items = []
    for i, (asked, right) in enumerate(
        zip(list(record["instructions"]), list(record["outputs"]), strict=True)
    ):
        rule = leval_rule(str(record.get("evaluation", "")), f"{stem} {source}", str(right))
        ask = f"\n\n{rule.instruction}\n\n{asked}".rstrip()
        items.append(_item(f"L-Eval {stem}", f"{number}.{i}", rule,
                           "Read the document, then follow the instruction after it.\n\n",
                           text, ask, rule.expected(right)))
    return items


def _longbench(record: Record, number: int, stem: str) -> list[Item]:
    name = str(record.get("dataset") or stem).removesuffix("_e")
    rule = LONGBENCH.get(name, LONGBENCH["qasper"])
    classes = tuple(map(str, record.get("all_classes") or ()))
    asked = str(record["input"]).strip()
    if rule.chat:
        after = f"\n\n{rule.instruction}" + (f"\n\n{asked}" if asked else "")
        before = "Read the text below, then do what is said after it.\n\n"
    else:  # examples, or code, that are to be continued
        before, after = (f"{rule.instruction}\n\n" if rule.instruction else ""), f"\n{asked}"
    return [_item(f"LongBench {name}", str(record.get("_id", number)), rule, before,
                  str(record["context"]), after, tuple(map(str, list(record["answers"]))),
                  classes)]


def _infinitebench(record: Record, number: int, stem: str) -> list[Item]:
    options = [str(each) for each in record.get("options") or ()]
    answers = record["answer"] if isinstance(record["answer"], list) else [record["answer"]]
    name = next((each for each in INFINITEBENCH if each in stem), None)
    if name is None:
        name = "longbook_choice_eng" if options else "longbook_qa_eng"
    rule = INFINITEBENCH[name]
    expected = tuple(map(str, answers))
    after = f"\n\n{rule.instruction}\n\n{record['input']}".rstrip()
    if options:
        letter = "ABCD"[options.index(expected[0])]
        expected = (letter, expected[0])
        after += "\n" + "\n".join(f"{mark}. {text}"
                                  for mark, text in zip("ABCD", options, strict=False))
    elif rule.metric == "numbers":
        expected = tuple(str(int(each)) for each in answers)
    return [_item(f"InfiniteBench {name}", str(record.get("id", number)), rule,
                  "Read the text below, then do what is said after it.\n\n",
                  str(record["context"]), after, expected)]


def _item(
    task: str, name: str, rule: Rule, before: str, context: str, after: str,
    expected: tuple[str, ...], classes: tuple[str, ...] = (),
) -> Item:
    if not expected:
        raise ValueError("no answer")
    return Item(
        task=task, id=name, length=0, before=before, context=context, after=after,
        prefix=rule.prefix, expected=expected, metric=rule.metric, max_tokens=rule.max_tokens,
        chat=rule.chat, classes=classes,
    )
