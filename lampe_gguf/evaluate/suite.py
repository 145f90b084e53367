"""Tasks x lengths x methods: the same questions for every method, answered and scored."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backend.vocabulary import vocabulary
from ..errors import LampeError, UsageError
from ..model.choose import ModelFile, read_file
from .perplexity import METHODS, model_rope, setting
from .tasks.answering import answer, can_share
from .tasks.item import Count, Item
from .tasks.journal import Journal, Result
from .tasks.prompting import Prompter, Tokens, common
from .tasks.scoring import score

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

Generator = Callable[[int, Count], Iterable[Item]]  # the items of one length, for a tokenizer


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


@dataclass
class Suite:
    """What to run.

    lengths   tokens of prompt and answer, at most
    generate  makes the items of one length
    portable  take the portable path, also where the devices have fused attention
    choices   as in evaluate.setting(): factor, local_window, group_size
    resume    the journal; None keeps results in memory alone
    """

    model: Path
    generate: Generator
    lengths: Sequence[int]
    methods: Sequence[str] = ("lampe", "truncate")
    raw: bool = False
    threads: int | None = None
    portable: bool = False
    choices: dict[str, Any] = field(default_factory=dict)
    resume: Path | None = None
    parameters: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict, init=False)
    results: list[Result] = field(default_factory=list, init=False)

    def run(self, observer: Observer | None = None) -> Iterator[Result]:
        """Each result as it comes, those that the journal holds already among them.

        Fills in `parameters`: method -> length -> what it was run with, and `results`: what an
        interruption between the journal's line and the caller would lose. Raises LampeError where
        a model, a value or a length is refused; an interruption leaves the journal whole.
        """
        tell = observer or Observer()
        for method in self.methods:
            if method not in METHODS:
                raise UsageError(
                    f"there is no method {method!r}; it is one of {', '.join(METHODS)}"
                )
        file = read_file(self.model)
        config = file.config
        self.window = config.window
        status = self.model.stat()
        settings = {
            "model": self.model.name, "bytes": status.st_size, "raw": self.raw,
            # converting anew may change nothing else of the file
            "values": " ".join(f"{name}={x}" for name, x in config.effective().items()),
            **{name: value for name, value in self.choices.items() if value is not None},
        }
        rope = model_rope(file)
        ordered = sorted(set(self.lengths))
        for method in self.methods:
            for length in ordered:
                setting(method, config, length, **rope | self.choices)  # refuses before any work
        with Journal(self.resume, settings) as journal, vocabulary(file) as vocab:
            damage = journal.damage()
            if damage is not None:
                tell.note(damage)
            prompter = Prompter(vocab, self.raw)
            outlook = _Outlook(ordered, tell)
            for length in ordered:
                tell.stage(f"making the prompts of {length:,} tokens")
                items = list(self.generate(length, prompter.count))
                if not items:
                    continue
                whole = [prompter.tokens(item) for item in items]
                for item, tokens in zip(items, whole, strict=True):
                    if len(tokens) + item.max_tokens > length:
                        raise LampeError(
                            f"item {item.id} of {item.task} has {len(tokens):,} tokens and "
                            f"{item.max_tokens} for its answer, more than {length:,}; give a "
                            "greater length"
                        )
                work = []
                for method in self.methods:
                    asked = whole
                    if method == "truncate":
                        asked = [prompter.cut(item, self.window - item.max_tokens)
                                 for item in items]
                    work.append((method, _Work(items, asked, method, length, journal)))
                outlook.known(length, [each.cost() for _, each in work])
                for method, each in work:
                    how = setting(method, config, length, **rope | self.choices)
                    self.parameters.setdefault(method, {})[length] = how.parameters
                    self.results += each.known
                    yield from each.known
                    if each.todo:
                        yield from self._answer(file, each, how, tell)

    def _answer(
        self, file: ModelFile, work: _Work, how: Any, tell: Observer
    ) -> Iterator[Result]:
        tell.stage(f"{work.method}, {work.length:,} tokens")
        llm = self._open(file, how, max(len(p) + i.max_tokens for i, p, _ in work.todo))
        try:
            share = can_share(llm)
            if not share and len(work.todo) > 1:
                tell.note(
                    "the length policy is 'prompt', where what was read cannot be kept for the "
                    "next question: every prompt is read whole"
                )
            for item, prompt, digest in work.todo:
                start = time.monotonic()
                text, read = answer(
                    llm, prompt, item.max_tokens, share=share, on_work=tell.work
                )
                result = Result(
                    task=item.task, length=item.length, method=work.method, id=item.id,
                    prompt=digest, depth=item.depth, metric=item.metric,
                    expected=list(item.expected), answer=text, score=score(item, text),
                    prompt_tokens=len(prompt), read=read,
                    seconds=round(time.monotonic() - start, 3),
                )
                self.results.append(result)
                work.journal.add(result)
                yield result
        finally:
            llm.close()

    def _open(self, file: ModelFile, how: Any, n_ctx: int) -> LampeLlama:
        from ..backend.llama import LampeLlama

        options = dict(how.options)
        if self.threads is not None:
            options |= {"n_threads": self.threads, "n_threads_batch": self.threads}
        return LampeLlama(
            file, lampe=how.lampe, n_ctx=n_ctx,
            attention="portable" if self.portable else None, **options
        )


class _Work:
    """The questions of one length for one method: those answered, and those to do in order."""

    def __init__(
        self, items: Sequence[Item], prompts: Sequence[Tokens], method: str, length: int,
        journal: Journal,
    ) -> None:
        self.method = method
        self.length = length
        self.journal = journal
        self.known: list[Result] = []
        self.todo: list[tuple[Item, Tokens, str]] = []
        for item, prompt in zip(items, prompts, strict=True):
            digest = hashlib.sha256(prompt.tobytes()).hexdigest()[:16]
            found = journal.found.get((item.task, item.length, method, item.id, digest))
            if found is None:
                self.todo.append((item, prompt, digest))
            else:
                self.known.append(found)

    def cost(self) -> int:
        """Tokens to read and, at most, to write."""
        total, last = 0, None
        for item, prompt, _ in self.todo:
            shared = 0 if last is None else common(prompt, last)
            total += len(prompt) - shared + item.max_tokens
            last = prompt
        return total


class _Outlook:
    """Keeps an estimate of all work, from the lengths whose prompts have been made."""

    def __init__(self, lengths: Sequence[int], tell: Observer) -> None:
        self.ahead = list(lengths)
        self.total = 0
        self.seen = 0
        self.tell = tell

    def known(self, length: int, costs: Sequence[int]) -> None:
        """The next length takes this much; those after it as much for each of their tokens."""
        self.total += sum(costs)
        self.seen += length
        self.ahead = [each for each in self.ahead if each > length]
        self.tell.outlook(round(self.total * (1 + sum(self.ahead) / self.seen)))
