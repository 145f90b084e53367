"""Tasks x lengths x methods: the same questions for every method, answered and scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backend.vocabulary import vocabulary
from ..errors import LampeError, UsageError
from ..method.config import LampeConfig
from ..model.choose import ModelFile, read_file
from .asking import Observer, Work, ask_alone, ask_shared, shared_cost
from .perplexity import METHODS, SCALINGS, Setting, model_rope, setting
from .recall import map_named
from .tasks.item import Count, Item
from .tasks.journal import Journal, Result
from .tasks.prompting import Prompter

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

ALONE = ("truncate", *SCALINGS)  # read for themselves: another text, other frequencies
Generator = Callable[[int, Count], Iterable[Item]]  # the items of one length, for a tokenizer


def method_setting(
    method: str, config: LampeConfig, length: int, choices: dict[str, Any]
) -> Setting:
    """What a method means for `length` tokens: UsageError for one that there is not.

    method   one of METHODS; a neighbour with its local window, "jetlong:2048"; or "L/s1", LaMPE
             with that mapping length at every length and that local window; "@F" behind one of
             these, or behind "lampe", has that attention factor
    choices  as in evaluate.setting(), for those of METHODS
    """
    if method in METHODS:
        return setting(method, config, length, **choices)
    if not any(sign in method for sign in ":/@"):
        raise UsageError(
            f"there is no method {method!r}; it is one of {', '.join(METHODS)}, a neighbour with "
            "its local window (jetlong:2048), or LaMPE's L/s1 (4096/1024); @F behind it is an "
            "attention factor (lampe@1.04)"
        )
    found = map_named(method, config, length)
    names = ["method", "window", "local_window", "tail_window", "max_mapping_length",
             "attention_factor", "length_policy", "length_step", "group_size"]
    return Setting(found, {}, {name: getattr(found, name) for name in names})


@dataclass
class Suite:
    """What to run.

    lengths   tokens of prompt and answer, at most
    generate  makes the items of one length
    methods   as method_setting() has them
    read_with the method under which each text is read, once for all methods that are maps of
              positions: only the questions differ. None: each reads for itself
    portable  take the portable path, also where the devices have fused attention
    choices   as in evaluate.setting(): factor, local_window, group_size
    resume    the journal; None keeps results in memory alone
    """

    model: Path
    generate: Generator
    lengths: Sequence[int]
    methods: Sequence[str] = ("lampe", "truncate")
    read_with: str | None = None
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
        file = read_file(self.model)
        config = file.config
        self.window = config.window
        status = self.model.stat()
        settings = {
            "model": self.model.name, "bytes": status.st_size, "raw": self.raw,
            # converting anew may change nothing else of the file
            "values": " ".join(f"{name}={x}" for name, x in config.effective().items()),
            "read_with": self.read_with,
            **{name: value for name, value in self.choices.items() if value is not None},
        }
        choices = model_rope(file) | self.choices
        ordered = sorted(set(self.lengths))
        if self.read_with in ALONE:
            raise UsageError(f"what is read with {self.read_with} serves no other method; give "
                             "--read-with a method that maps positions, lampe say")
        for method in (*self.methods, *([self.read_with] if self.read_with else [])):
            for length in ordered:
                method_setting(method, config, length, choices)  # refuses before any work
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
                texts = [prompter.before_question(item) if self.read_with else 0
                         for item in items]
                work = []
                for method in self.methods:
                    asked = prompter.cut(items, self.window) if method == "truncate" else whole
                    work.append(Work(items, asked, texts, method, length, journal, self.results))
                    how = method_setting(method, config, length, choices)
                    self.parameters.setdefault(method, {})[length] = how.parameters
                    self.results += work[-1].known
                    yield from work[-1].known
                todo = [each for each in work if each.todo]
                shared = [each for each in todo if self._is_shared(each.method, config)]
                alone = [each for each in todo if each not in shared]
                outlook.known(length, shared_cost(shared) + sum(each.cost() for each in alone))
                yield from self._ask(file, config, shared, alone, length, choices, tell)

    def setting_of(self, method: str, length: int) -> Setting:
        """What a method of this suite means for `length` tokens."""
        file = read_file(self.model)
        return method_setting(method, file.config, length, model_rope(file) | self.choices)

    def _is_shared(self, method: str, config: LampeConfig) -> bool:
        # under the policy "prompt", keys depend on the length of the whole prompt
        return (self.read_with is not None and method not in ALONE
                and config.length_policy == "causal")

    def _ask(
        self, file: ModelFile, config: LampeConfig, shared: Sequence[Work], alone: Sequence[Work],
        length: int, choices: dict[str, Any], tell: Observer,
    ) -> Iterator[Result]:
        def how(method: str) -> Setting:
            return method_setting(method, config, length, choices)

        def opened(way: Setting, n_ctx: int) -> LampeLlama:
            return self._open(file, way, n_ctx)

        if shared:
            yield from ask_shared(shared, [how(each.method) for each in shared],
                                  how(str(self.read_with)), opened, tell)
        for each in alone:
            yield from ask_alone(each, how(each.method), opened, tell)

    def _open(self, file: ModelFile, how: Setting, n_ctx: int) -> LampeLlama:
        from ..backend.llama import LampeLlama

        options = dict(how.options)
        if self.threads is not None:
            options |= {"n_threads": self.threads, "n_threads_batch": self.threads}
        return LampeLlama(
            file, lampe=how.lampe, n_ctx=n_ctx,
            attention="portable" if self.portable else None, **options
        )


class _Outlook:
    """Keeps an estimate of all work, from the lengths whose prompts have been made."""

    def __init__(self, lengths: Sequence[int], tell: Observer) -> None:
        self.ahead = list(lengths)
        self.total = 0
        self.seen = 0
        self.tell = tell

    def known(self, length: int, cost: int) -> None:
        """The next length takes this much; those after it as much for each of their tokens."""
        self.total += cost
        self.seen += length
        self.ahead = [each for each in self.ahead if each > length]
        self.tell.outlook(round(self.total * (1 + sum(self.ahead) / self.seen)))
