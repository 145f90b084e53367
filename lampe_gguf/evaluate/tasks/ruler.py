"""The thirteen tasks that the paper RULER (arXiv 2404.06654) defines, made anew.

Own words and code after the paper's description and its table of settings; scored as there, by
the share of the expected strings that an answer holds, questions by whether it holds any of them.
Up to 4,096 tokens the common words come 10 times and the others once (30 and 3 beyond), so that
they fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...errors import UsageError
from .haystack import Haystack, fill
from .item import Count, Item, draw
from .passages import Passages
from .ruler_needles import NEEDLE_TASKS, needles
from .ruler_parts import Parts
from .ruler_qa import question
from .ruler_words import common_words, frequent_words, variables

QA_TASKS = ("qa_1", "qa_2")  # of one passage, of several
TASKS = (*NEEDLE_TASKS, "vt", "cwe", "fwe", *QA_TASKS)
MAX_TOKENS = {**dict.fromkeys(NEEDLE_TASKS, 128), "vt": 30, "cwe": 120, "fwe": 50,
              **dict.fromkeys(QA_TASKS, 32)}


def ruler(
    length: int,
    count: Count,
    *,
    hay: Haystack,
    tasks: Sequence[str] = TASKS,
    passages: Passages | None = None,
    limit: int,
    seed: int,
) -> Iterator[Item]:
    """`limit` items of each task; qa_1 and qa_2 need passages.

    LampeError where `length` has no room for one, UsageError for passages that have none.
    """
    for task in tasks:
        for i in range(limit):
            rng = draw(seed, "ruler", task, length, i)
            if task in NEEDLE_TASKS:
                parts = needles(task, hay, rng)
            elif task == "vt":
                parts = variables(rng)
            elif task == "cwe":
                parts = common_words(length, hay, rng)
            elif task == "fwe":
                parts = frequent_words(rng)
            elif passages is None:
                raise UsageError(f"{task} needs passages; give --qa-passages FILE")
            else:
                found = question(task, passages, i, rng)
                if found is None and i == 0:
                    raise UsageError(f"the passages have no question for {task}; leave it out of "
                                     "--tasks, or give others")
                if found is None:  # fewer questions than asked for
                    break
                parts = found
            yield _item(task, i, length, count, parts)


def _item(task: str, i: int, length: int, count: Count, parts: Parts) -> Item:
    budget = length - MAX_TOKENS[task]

    def prompt(n: int) -> str:
        return parts.before + parts.build(n) + parts.after + parts.prefix

    n = fill(prompt, count, budget, f"RULER's {task}", parts.most)
    return Item(
        task=task, id=str(i), length=length, before=parts.before, context=parts.build(n),
        after=parts.after, prefix=parts.prefix, expected=parts.expected,
        metric="contains" if task in QA_TASKS else "recall", max_tokens=MAX_TOKENS[task],
        depth=parts.depth,
    )
