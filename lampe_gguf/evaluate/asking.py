"""Questions that are still to be answered, asked: each method reads for itself, or one for all."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .perplexity import Setting
from .tasks.answering import answer, can_share
from .tasks.item import Item
from .tasks.journal import Journal, Result
from .tasks.prompting import Tokens, common
from .tasks.scoring import score

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

Open = Callable[[Setting, int], "LampeLlama"]  # for a context of so many tokens


@dataclass
class Observer:
    """What a run tells while it goes on; each may be left as it is.

    outlook  (tokens to read and to write in all, as far as is known by now)
    work     (tokens read or written just now)
    stage    (what is done now, in words)
    note     (a sentence that the user should see)
    """

    outlook: Callable[[int], None] = lambda total: None
    work: Callable[[int], None] = lambda count: None
    stage: Callable[[str], None] = lambda text: None
    note: Callable[[str], None] = lambda text: None


class Question(NamedTuple):
    """An item as a method is asked it.

    prompt  its tokens: [n]
    text    how many of them, from the beginning on, hold nothing of the question
    digest  of the tokens
    """

    item: Item
    prompt: Tokens
    text: int
    digest: str


class Work:
    """The questions of one length for one method: those answered, and those to do in order.

    results  where answers go before they are in the journal
    """

    def __init__(
        self, items: Sequence[Item], prompts: Sequence[Tokens], texts: Sequence[int], method: str,
        length: int, journal: Journal, results: list[Result],
    ) -> None:
        self.method = method
        self.length = length
        self.journal = journal
        self.results = results
        self.known: list[Result] = []
        self.todo: list[Question] = []
        for item, prompt, text in zip(items, prompts, texts, strict=True):
            digest = hashlib.sha256(prompt.tobytes()).hexdigest()[:16]
            found = journal.found.get((item.task, item.length, method, item.id, digest))
            if found is None:
                self.todo.append(Question(item, prompt, text, digest))
            else:
                self.known.append(found)

    def most(self) -> int:
        """Tokens that the longest of its questions has with its answer."""
        return max(len(each.prompt) + each.item.max_tokens for each in self.todo)

    def cost(self) -> int:
        """Tokens to read and, at most, to write, where the method reads for itself."""
        total, last = 0, None
        for each in self.todo:
            shared = 0 if last is None else common(each.prompt, last)
            total += len(each.prompt) - shared + each.item.max_tokens
            last = each.prompt
        return total

    def ask(self, llm: LampeLlama, each: Question, tell: Observer, share: bool = True) -> Result:
        """The answer, which is in the results and in the journal by then."""
        start = time.monotonic()
        text, read = answer(llm, each.prompt, each.item.max_tokens, share=share,
                            on_work=tell.work)
        result = Result(
            task=each.item.task, length=each.item.length, method=self.method, id=each.item.id,
            prompt=each.digest, depth=each.item.depth, metric=each.item.metric,
            expected=list(each.item.expected), answer=text, score=score(each.item, text),
            prompt_tokens=len(each.prompt), read=read,
            seconds=round(time.monotonic() - start, 3),
        )
        self.results.append(result)
        self.journal.add(result)
        return result


def ask_alone(work: Work, how: Setting, opened: Open, tell: Observer) -> Iterator[Result]:
    """The answers of a method that reads every text itself."""
    tell.stage(f"{work.method}, {work.length:,} tokens")
    llm = opened(how, work.most())
    try:
        share = can_share(llm)
        if not share and len(work.todo) > 1:
            tell.note(
                "the length policy is 'prompt', where what was read cannot be kept for the "
                "next question: every prompt is read whole"
            )
        for each in work.todo:
            yield work.ask(llm, each, tell, share)
    finally:
        llm.close()


def texts_of(works: Sequence[Work]) -> list[list[tuple[Work, list[Question]]]]:
    """What is to be asked about each text, by method; in order."""
    texts: dict[tuple[str, str], dict[int, list[Question]]] = {}
    for i, work in enumerate(works):
        for each in work.todo:
            about = texts.setdefault((each.item.before, each.item.context), {})
            about.setdefault(i, []).append(each)
    return [[(works[i], asked) for i, asked in about.items()] for about in texts.values()]


def shared_cost(works: Sequence[Work]) -> int:
    """Tokens to read and, at most, to write, where one reading of each text serves all."""
    total, held = 0, None
    for about in texts_of(works):
        text = _text(about)
        total += len(text) - (0 if held is None else common(text, held))
        total += sum(len(each.prompt) - len(text) + each.item.max_tokens
                     for _, questions in about for each in questions)
        held = text
    return total


def _text(about: Sequence[tuple[Work, list[Question]]]) -> Tokens:
    """The tokens that all these questions begin with: those of their text."""
    asked = [each for _, questions in about for each in questions]
    return asked[0].prompt[: min(each.text for each in asked)]


def ask_shared(
    works: Sequence[Work], ways: Sequence[Setting], reading: Setting, opened: Open,
    tell: Observer,
) -> Iterator[Result]:
    """The answers of methods that are maps of positions: cached keys carry none.

    ways     each method's, of which the questions alone are asked under it
    reading  how each text is read, once
    """
    maps = {work.method: way for work, way in zip(works, ways, strict=True)}
    llm = opened(reading, max(work.most() for work in works))
    try:
        held = None  # what was read under `reading`
        for about in texts_of(works):
            text = _text(about)
            kept = 0 if held is None else common(text, held)
            tell.stage(f"reading {len(text):,} tokens for all methods")
            llm.set_config(reading.lampe)
            llm.n_tokens = kept  # what was asked before goes
            if kept < len(text):
                _read(llm, text[kept:].tolist(), tell)
            held = text
            for work, questions in about:
                tell.stage(f"asking with {work.method}")
                llm.set_config(maps[work.method].lampe)
                for each in questions:
                    llm.n_tokens = len(text)
                    yield work.ask(llm, each, tell)
    finally:
        llm.close()


def _read(llm: LampeLlama, tokens: list[int], tell: Observer) -> None:
    read = 0

    def progress(done: int, total: int) -> None:
        nonlocal read
        tell.work(done - read)
        read = done

    llm.progress = progress
    try:
        llm.eval(tokens)
    finally:
        llm.progress = None
