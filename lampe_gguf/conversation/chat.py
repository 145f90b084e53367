"""A conversation with a model, and with documents, in the terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..backend.calls import Cancelled
from ..container.atomic import write_file
from ..errors import LampeError
from . import shelf
from .commands import obey
from .documents import Document
from .journal import Journal, OnNote
from .kept import Conversation, as_json
from .length import count_up_to
from .prompt import Message, chat_tokens
from .reply import ContextFull, Reply, early_end
from .setting import Model, Setting, differences, model_of, values_of
from .sources import Source, find_sources
from .turn import Turn, messages_of

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama
    from ..readings.keeping import Readings

Show = Callable[[str], None]


@dataclass
class Chat:
    """A conversation with a model, which is open and stays the caller's to close.

    show         called with the answers as they come, and with what commands have to say
    on_note      called with a sentence about an answer that ended early
    max_tokens   longest answer, tokens
    temperature  0 for the likeliest answer
    seed         for the same answers again
    turns        what was said so far
    pending      documents that go along with the next line
    unsent       the line that could not be answered, for /retry
    used         tokens of the conversation
    journal      what keeps the conversation as it goes, None: nothing does; see `keep`
    started      when it began, seconds since 1970
    readings     where what was read of documents is kept and looked for; None: nowhere

    `answer` says a line and gives the answer; `handle` takes lines as a user types them, commands
    among them. What was read before is kept: with the length policy "causal" (method: section 3),
    only what is new is read.

    >>> from lampe_gguf import Chat, Document, LampeLlama
    >>> with LampeLlama("model.gguf", lampe="auto", n_ctx=512) as llm:
    ...     chat = Chat(llm, max_tokens=8)
    ...     chat.pending.append(Document("the letter", "Dear Sir, the boat sails on Monday."))
    ...     first = chat.answer("When does it sail?")
    ...     again = chat.answer("Are you sure?")
    >>> [message["role"] for message in chat.messages]
    ['user', 'assistant', 'user', 'assistant']

    A conversation outlives its program. `save` writes it into a file, `keep` begins a journal, to
    which each line and each answer is appended as it comes, and `resume` goes on with either:

    >>> with LampeLlama("model.gguf", lampe="auto", n_ctx=512) as llm:
    ...     chat.save("talk.json")
    ...     chat = Chat.resume(llm, "talk.json")
    ...     third = chat.answer("Thank you.")
    >>> len(chat.turns), chat.turns[0].documents[0].name
    (3, 'the letter')
    """

    llm: LampeLlama
    show: Show = lambda text: None
    max_tokens: int = 256
    temperature: float = 0.2
    seed: int | None = None
    turns: list[Turn] = field(default_factory=list)
    pending: list[Document] = field(default_factory=list)
    unsent: str | None = None
    used: int = 0
    last_rate: float = 0.0
    journal: Journal | None = None
    started: float = field(default_factory=time.time)
    readings: Readings | None = None
    on_note: OnNote = lambda text: None
    _model: Model | None = field(default=None, init=False, repr=False)
    _setting: Setting | None = field(default=None, init=False, repr=False)

    @classmethod
    def resume(
        cls, llm: LampeLlama, source: str | os.PathLike[str] | Conversation, *,
        show: Show = lambda text: None, keep: bool = False, on_note: OnNote = lambda text: None,
    ) -> Chat:
        """Go on with a conversation, with its turns, documents, sampling and seed.

        source   a file that `save` wrote; the id of a chat that is kept, or the beginning of one;
                 "last" for the one that was written to last; or what was read of one of these
        show     as in Chat
        keep     keep what is said: of a kept chat in its journal, else in a new one
        on_note  called with a sentence for each thing that is not as it was: another model, other
                 values, a document whose file has changed since (its text is the conversation's
                 own, which stays); and where the journal cannot be written

        What is read again is the same text, and with a seed, or a temperature of 0, so are the
        answers; but text is read in other batches than it was written in, and a choice between two
        words that are equally likely may fall otherwise. Raises LampeError for a file that is no
        conversation, UsageError where there is none, and LampeError where another program has the
        kept chat open.
        """
        journal = None
        if not isinstance(source, Conversation):
            source, journal = shelf.go_on(os.fspath(source), keep=keep, on_note=on_note)
        then = source.setting
        chat = cls(llm, show, turns=list(source.turns), pending=list(source.pending),
                   unsent=source.unsent, journal=journal)
        chat.started = source.started or chat.started
        if then is not None:
            chat.max_tokens, chat.temperature = then.max_tokens, then.temperature
            chat.seed = then.seed
        now = chat.setting
        changed = differences(then, now) if then is not None and now is not None else []
        for note in (*source.notes, *changed, *source.changed_documents()):
            on_note(note)
        chat.used = chat._count(chat.messages)
        if keep:
            chat.keep(on_note)
        return chat

    def keep(self, on_note: OnNote = lambda text: None) -> None:
        """Keep the conversation, in a journal of its own that `lampe-gguf chats` lists.

        on_note  called with a sentence where the disk takes no more; the conversation goes on

        There is a file once something is said. What is forgotten (/drop, /reset) goes from it, too.
        It is this object's alone until `journal.close()`. Does nothing where one is kept already.
        """
        if self.journal is None:
            self.journal = Journal(shelf.folder(), on_note, self.started)
            self.note()

    @property
    def setting(self) -> Setting | None:
        """With what the conversation is had; of a closed model, what was last known."""
        try:
            config = self.llm.lampe_config
            if self._model is None:
                self._model = model_of(self.llm)
            self._setting = Setting(
                self._model, values_of(config), self.llm.n_ctx(), self.max_tokens,
                self.temperature, self.seed,
            )
        except LampeError:
            pass
        return self._setting

    @property
    def last_setting(self) -> Setting | None:
        """With what the conversation was had last; None before there was a model."""
        return self._setting

    def note(self) -> None:
        """Have the journal say what the conversation is now."""
        if self.journal is None or (setting := self.setting) is None:
            return
        if self.turns or self.pending or self.unsent is not None or self.journal.is_there:
            self.journal.update(self, setting)

    @property
    def messages(self) -> list[Message]:
        """The conversation, as the model's chat template takes it."""
        return messages_of(self.turns)

    def prompt(self) -> str:
        """What stands before the user's line: tokens used of the context."""
        return f"[{self.used:,} of {self.llm.n_ctx():,} tokens] > "

    def handle(self, line: str) -> bool:
        """Do what one line says; False when it ends the conversation. Raises LampeError."""
        line = line.strip()
        if line.startswith("/"):
            goes_on = obey(self, *line.split(maxsplit=1))
            self.note()
            return goes_on
        if line:
            self.answer(line)
        return True

    def answer(self, line: str) -> str:
        """Say a line and give the answer; Ctrl-C ends it early and keeps what there is of it.

        Raises LampeError, with the ways out, where the context has no room; the line is kept.
        """
        reply = self.say(line, self.show)
        if reply.is_stopped:
            self.show(" [stopped]")
        room = self.llm.n_ctx() - reply.prompt_tokens
        is_full = self.max_tokens > room == reply.answer_tokens
        if is_full:
            self.show(" [the context is full: /drop makes room]")
        self.show("\n")
        early = early_end(reply.text, reply.answer_tokens, self.max_tokens)
        if early is not None and not (reply.is_stopped or is_full):
            self.on_note(early)
        for source in self.sources(reply.text):
            self.show(f"[{source.said()}]\n")
        return reply.text

    def say(self, line: str, on_text: Show) -> Reply:
        """Say a line, whose answer becomes a turn; on_text is called with it as it comes.

        Raises as answer() does, and Cancelled where the model's call was cancelled before anything
        was written: the line is kept, as where the context has no room. What was written by then
        is a turn. Ctrl-C always leaves one.
        """
        self._refuse_long(line)
        turn = Turn(tuple(self.pending), line)
        was_full, self.unsent = self.unsent is not None, line
        self.note()  # before the answer: whatever ends the program, the line is not lost
        reply = Reply(
            self.llm, [*self.messages, turn.message], self.max_tokens, self.temperature, self.seed,
            documents=turn.documents, readings=self.readings,
        )
        stream = iter(reply)
        try:
            for text in stream:
                on_text(text)
        except KeyboardInterrupt:
            reply.is_stopped = True
        except Cancelled:
            if not reply.text:
                raise
            reply.is_stopped = True
        except ContextFull as error:
            raise self._full(error.needed, was_full) from None
        finally:
            stream.close()
        if reply.answer_tokens > 1:
            self.last_rate = (reply.answer_tokens - 1) / max(1e-9, reply.seconds_answering)
        # an answer that was stopped is part of what was said
        self.turns.append(replace(turn, answer=reply.text))
        self.pending.clear()
        self.unsent = None
        self.used = self.llm.n_tokens
        self.note()
        return reply

    def sources(self, answer: str) -> list[Source]:
        """Where words of the last answer stand in the documents of the conversation."""
        read = [each for said in self.turns for each in said.documents]
        return find_sources(answer, read, self.turns[-1].line)

    def _refuse_long(self, line: str) -> None:
        """LampeError for a line that fits into no context of this chat; one that is kept stays."""
        count = count_up_to(self.llm._model, [line], self.llm.n_ctx())
        if count.is_too_long:
            raise LampeError(
                f"the line has about {count.tokens:,} tokens and the context holds "
                f"{self.llm.n_ctx():,}; say it in fewer words, or start again with a larger --n-ctx"
            )

    def _full(self, needed: int, again: bool) -> LampeError:
        """The ways out for the line that is kept; in few words where they were said before."""
        n_drop = self.n_to_drop()
        if n_drop is not None:
            way = f"/drop forgets the oldest {n_drop} of {len(self.turns)} turns"
        elif self.pending or any(turn.documents for turn in self.turns):
            way = "/drop doc forgets the documents"
        else:
            way = "it needs fewer words"
        if again:
            return LampeError(f"still full: {way}, then /retry sends this line")
        return LampeError(
            f"the context is full: with your line the conversation has {needed:,} tokens and the "
            f"context holds {self.llm.n_ctx():,}. The line is kept: {way}, /reset forgets "
            "everything, then /retry sends it; or start again with a larger --n-ctx"
        )

    def drop(self, n: int) -> None:
        """Forget the oldest n turns, and keep their documents."""
        self.turns, self.pending = self._without(n)
        self.used = self._count(self.messages)

    def drop_documents(self) -> int:
        """Forget the documents and keep what was said; how many there were."""
        n_documents = len(self.pending) + sum(len(turn.documents) for turn in self.turns)
        self.turns = [replace(turn, documents=()) for turn in self.turns]
        self.pending.clear()
        self.used = self._count(self.messages)
        return n_documents

    def reset(self) -> None:
        """Forget everything."""
        self.turns.clear()
        self.pending.clear()
        self.llm.reset()
        self.used, self.last_rate = 0, 0.0

    def _without(self, n: int) -> tuple[list[Turn], list[Document]]:
        """Turns and pending documents without the oldest n turns, whose documents stay."""
        documents = tuple(each for turn in self.turns[:n] for each in turn.documents)
        turns = self.turns[n:]
        if not turns:
            return [], [*documents, *self.pending]
        turns[0] = replace(turns[0], documents=documents + turns[0].documents)
        return turns, list(self.pending)

    def n_to_drop(self) -> int | None:
        """The fewest turns without which the unsent line fits, None where it never does.

        With room for an answer of some length, or at least for one at all.
        """
        for n_answer in (min(self.max_tokens, self.llm.n_ctx() // 4), 1):
            low, high = 0, len(self.turns)
            if not self._fits(high, n_answer):
                continue
            while low < high:
                middle = (low + high) // 2
                low, high = (low, middle) if self._fits(middle, n_answer) else (middle + 1, high)
            return low
        return None

    def _fits(self, n: int, n_answer: int) -> bool:
        """Whether the unsent line and an answer have room without the oldest n turns."""
        turns, pending = self._without(n)
        asked = Turn(tuple(pending), self.unsent or "")
        needed = self._count([*messages_of(turns), asked.message])
        return bool(needed + n_answer <= self.llm.n_ctx())

    def _count(self, messages: list[Message]) -> int:
        return len(chat_tokens(self.llm._model, messages)) if messages else 0

    def stats(self) -> str:
        """Context use, speed of the last answer, and the plan in force."""
        used, total = self.used, self.llm.n_ctx()
        lines = [f"context    {used:,} of {total:,} tokens ({100 * used / total:.0f} %)"]
        lines.append(f"attention  {self.llm.path}")
        plan = self.llm.plan()
        if plan is not None and plan.is_identity:
            lines.append("mapping    none needed yet: plain RoPE")
        elif plan is not None:
            lines.append(
                f"mapping    {plan.length:,} tokens into {plan.mapping_length:,} positions"
            )
        if self.last_rate:
            lines.append(f"speed      {self.last_rate:.1f} tokens/s in the last answer")
        return "\n".join(lines)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the conversation into a file that `resume` takes, whole or not at all.

        JSON with the turns, the documents' texts, the model's name, values and sampling; none but
        the user may read it. An old file of that name is replaced. LampeError where that fails.
        """
        text = as_json(self, self.setting, started=self.started)
        write_file(Path(path), text.encode(), force=True, mode=0o600)
