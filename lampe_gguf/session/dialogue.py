"""A conversation in a session."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..conversation import shelf
from ..conversation.chat import Chat
from ..conversation.documents import Document, Text, as_documents
from ..conversation.journal import Journal
from ..conversation.kept import Conversation
from ..conversation.length import count_tokens, count_up_to
from ..conversation.prompt import chat_tokens
from ..conversation.setting import differences
from ..conversation.turn import Turn, messages_of
from ..errors import LampeError
from ..method.fields import MAX_LENGTH
from ..readings.keeping import n_shared
from .events import Event, Failed, Progress, Stopped
from .found import Answered, Counted
from .request import Request

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama
    from .session import Session


class Dialogue:
    """A conversation with the model of a session, and with documents.

    `Session.dialogue` begins one and `Session.resume` goes on with one. What it holds can be read
    from any thread at any time: each value is put in place whole, and none changes afterwards.

    turns      what was said, each with its documents and its answer
    unsent     the line that has no answer: it was stopped before there was any, or it failed
    used       tokens of the context that the conversation takes, as of the last answer
    stretches  what lies in the context, in order: (a document's name, or "" for talk, tokens); once
               reading begins, with the line that is asked and its documents
    model      path of the model that it was had with before, "" for a new one

    >>> from lampe_gguf import Document, Session
    >>> with Session("model.gguf", n_ctx=512) as session:
    ...     dialogue = session.dialogue(max_tokens=4)
    ...     added = dialogue.add(Document("the letter", "Dear Sir, the boat sails on Monday."))
    ...     tokens = added.result()[0].tokens
    ...     answer = dialogue.ask("When does it sail?").result()
    >>> tokens > 4, answer.prompt_tokens > tokens, len(dialogue.turns)
    (True, True, 1)
    """

    def __init__(
        self, session: Session, found: Conversation, journal: Journal | None = None, *,
        keep: bool = False, max_tokens: int = 256, temperature: float = 0.2,
        seed: int | None = None,
    ) -> None:
        then = found.setting
        if then is not None:
            max_tokens, temperature, seed = then.max_tokens, then.temperature, then.seed
        self._session, self._then, self._keep = session, then, keep
        # a Chat without its model until the thread that computes gives it one
        self._chat = Chat(cast(Any, None), max_tokens=max_tokens, temperature=temperature,
                          seed=seed, turns=list(found.turns), unsent=found.unsent,
                          journal=journal, readings=session.readings)
        self._chat.started = found.started or self._chat.started
        session.take(self, self._chat)
        if journal is not None:  # what resumed it is over, and hears nothing more
            journal.on_note = self._teller()
        self._lock = threading.Lock()
        self._tokens: dict[Document, int] = {}
        self._requests: weakref.WeakSet[Request[Any]] = weakref.WeakSet()
        self._request: Request[Any] | None = None  # under way
        self.pending: tuple[Counted, ...] = tuple(map(Counted, found.pending))
        self.turns: tuple[Turn, ...] = tuple(found.turns)
        self.unsent: str | None = found.unsent
        self.used = 0
        self.stretches: tuple[tuple[str, int], ...] = ()
        self.model = then.model.path if then is not None else ""

    @property
    def id(self) -> str:
        """Of its journal, "" while nothing is kept."""
        journal = self._chat.journal
        return journal.id if journal is not None and journal.is_there else ""

    @property
    def title(self) -> str:
        """What was said first, "" for nothing yet."""
        return self.turns[0].line if self.turns else self.unsent or ""

    def add(self, texts: Text | Sequence[Text]) -> Request[tuple[Counted, ...]]:
        """Have documents go along with the next line: files, folders, Documents, or texts (str).

        They are read and their tokens counted (Progress "opening" and "counting"); a Note says what
        was read of each, and what was not. Gives those that were added.
        """
        def job(request: Request[tuple[Counted, ...]]) -> tuple[Counted, ...]:
            show = request.progress("opening", "pages")
            documents = as_documents(texts, to_ask=True, on_note=request.note, on_progress=show)
            counted = self._session.count(request, documents)
            with self._lock:
                self._know(counted)
                self.pending += counted
            return counted

        return self._session.files.submit("add", job)

    def recount(self) -> Request[tuple[Counted, ...]]:
        """Count tokens again, for another model or after `Session.resume`; gives the pending ones.

        `used` and `stretches` are those of the conversation then, though nothing of it is read.
        """
        def job(request: Request[tuple[Counted, ...]]) -> tuple[Counted, ...]:
            said = [each for turn in self.turns for each in turn.documents]
            pending = [each.document for each in self.pending]
            counted = self._session.count(request, [*said, *pending])
            by_document = {each.document: each for each in counted}
            with self._lock:
                self._tokens.clear()
                self._know(counted)
                self.pending = tuple(by_document.get(each.document, each)
                                     for each in self.pending)
            model = self._session.vocabulary()
            if model is not None and self.turns:
                used = len(chat_tokens(model, messages_of(self.turns)))
                self.stretches, self.used = self._stretches(model, self.turns, used), used
            return self.pending

        return self._session.files.submit("recount", job)

    def remove(self, document: Document) -> None:
        """Have a document not go along with the next line."""
        with self._lock:
            self.pending = tuple(each for each in self.pending if each.document is not document)

    def ask(
        self, line: str, *, max_tokens: int | None = None, temperature: float | None = None,
        seed: int | None = None,
    ) -> Request[Answered]:
        """Say a line, with the pending documents; the answer comes as Token events.

        max_tokens, temperature, seed  from here on, where they are given

        Where it is cancelled, what was written by then is the answer; where nothing was, or it
        fails, `unsent` holds the line and the documents stay pending.
        """
        def job(request: Request[Answered]) -> Answered | Stopped:
            chat = self._chat
            if max_tokens is not None:
                chat.max_tokens = max_tokens
            if temperature is not None:
                chat.temperature = temperature
            chat.seed = chat.seed if seed is None else seed
            return self._answer(request, line)

        return self._submit("ask", job, line)

    def retry(self) -> Request[Answered]:
        """Say the unsent line again; LampeError where there is none."""
        def job(request: Request[Answered]) -> Answered | Stopped:
            if self.unsent is None:
                raise LampeError("there is no line without an answer")
            return self._answer(request, self.unsent)

        return self._submit("retry", job, self.unsent)

    def _submit(
        self, kind: str, job: Callable[[Request[Answered]], Answered | Stopped], line: str | None
    ) -> Request[Answered]:
        request = self._session.computing.submit(kind, job)
        self._requests.add(request)

        def ended(event: Event) -> None:
            nothing = isinstance(event, Failed) or (
                isinstance(event, Stopped) and event.result is None)
            if nothing and self.unsent is None:  # it may never have begun
                self.unsent = line

        request.listen(ended)
        return request

    def drop(self, n: int = 1) -> Request[None]:
        """Forget the oldest n turns; their documents stay, with the oldest that is left."""
        def job(request: Request[None]) -> None:
            chat = self._chat
            if not 0 < n <= len(chat.turns):
                raise LampeError(f"there are {len(chat.turns)} turns; give a number from 1 to that")
            chat.llm = self._session.holder.model(request)
            with self._lock:
                chat.pending = [each.document for each in self.pending]
            chat.drop(n)
            with self._lock:
                before = {each.document: each for each in self.pending}
                self.pending = tuple(before.get(each, Counted(each, self._tokens.get(each)))
                                     for each in chat.pending)
            self._publish(chat.llm)
            chat.note()

        return self._session.computing.submit("drop", job)

    def save(self, path: str | os.PathLike[str]) -> Request[None]:
        """Write the conversation into a file that `Session.resume` takes; see Chat.save."""
        return self._session.computing.submit("save", lambda request: self._chat.save(path))

    def markdown(self) -> str:
        """The conversation to read; documents by their names."""
        found = Conversation(list(self.turns), [], self.unsent, self._chat.last_setting,
                             self._chat.started)
        return shelf.as_markdown(found, self.title or "A conversation")

    def close(self) -> Request[None]:
        """Stop what it asked, and let go of the journal, which another program can have then."""
        chat = self._chat
        for request in list(self._requests):
            request.cancel()

        def job(request: Request[None]) -> None:
            if chat.journal is not None:
                chat.journal.close()
            self._session.let_go(self, chat)

        return self._session.computing.submit("close", job)

    def _know(self, counted: Sequence[Counted]) -> None:
        self._tokens |= {each.document: each.tokens for each in counted
                         if each.tokens is not None}

    def _answer(self, request: Request[Answered], line: str) -> Answered | Stopped:
        chat, holder = self._chat, self._session.holder
        with self._lock:
            asked = self.pending
            self._request = request
        chat.pending = [each.document for each in asked]
        self.unsent = chat.unsent = line
        try:
            needed = self._needed(request, holder.model(request), line)
            llm = chat.llm = holder.model(request, needed)
            self._begin(request)
            llm.progress = request.progress("reading", "tokens",
                                            lambda done: llm.n_tokens - done)
            if chat.readings is not None:
                chat.readings.on_note = request.note
                chat.readings.on_progress = request.progress("restoring", "bytes")
            n_before = self._announce(request, llm, line)
            with request.stopped_by(llm.cancel):
                reply = chat.say(line, request.token)
        finally:
            if chat.llm is not None:
                chat.llm.progress = None
            if chat.readings is not None:
                chat.readings.on_note, chat.readings.on_progress = _unheard, None
            with self._lock:
                self._request = None
        if not reply.kept_tokens:
            holder.pace.learn(n_before, reply.prompt_tokens, reply.seconds_reading)
        with self._lock:
            self.pending = tuple(each for each in self.pending if each not in asked)
        self._publish(llm)
        answer = Answered(
            reply.text, reply.is_stopped, reply.prompt_tokens, reply.answer_tokens,
            reply.kept_tokens, reply.seconds_reading, reply.seconds_answering,
            reply.seconds_loading, llm.n_ctx(), llm.plan(), tuple(chat.sources(reply.text)))
        return Stopped(answer) if reply.is_stopped else answer

    def _needed(self, request: Request[Any], llm: LampeLlama, line: str) -> int:
        """Tokens that the conversation needs with this line and an answer.

        Raises LampeError where the model takes no input so long.
        """
        chat = self._chat
        messages = [*chat.messages, Turn(tuple(chat.pending), line).message]
        limit = self._session.holder.limit or MAX_LENGTH
        count = count_up_to(llm._model, [each["content"] for each in messages], limit,
                            request.progress("counting", "characters"))
        needed = count.tokens if count.is_too_long else len(chat_tokens(llm._model, messages))
        if count.is_too_long or needed >= limit:
            about = "about " if count.is_too_long else ""
            way = ("forget the oldest turns, or begin another conversation with less text"
                   if chat.turns else "ask about a part of the documents, or take some away")
            raise LampeError(f"the conversation needs {about}{needed:,} tokens and this model "
                             f"supports {limit:,}; {way}")
        return min(needed + chat.max_tokens, limit)

    def _begin(self, request: Request[Any]) -> None:
        """What can only be done once there is a model."""
        chat = self._chat
        if self._keep and chat.journal is None:
            chat.keep(self._teller())
        now = chat.setting
        if self._then is not None and now is not None:
            for note in differences(self._then, now):
                request.note(note)
        self._then = None

    def _teller(self) -> Callable[[str], None]:
        """_note, for who must not hold this: a session that nobody holds must be able to go."""
        mine = weakref.WeakMethod(self._note)

        def tell(text: str) -> None:
            note = mine()
            if note is not None:
                note(text)

        return tell

    def _note(self, text: str) -> None:
        """What the journal has to say goes to the request under way."""
        request = self._request
        if request is not None and not request.is_cancelled:
            request.note(text)

    def _announce(self, request: Request[Any], llm: LampeLlama, line: str) -> int:
        """Tell how much is to be read, if nothing of it is kept; how much is there already."""
        chat = self._chat
        prompt = chat_tokens(llm._model, [*chat.messages, Turn(tuple(chat.pending), line).message])
        n_before = n_shared(llm, prompt)
        n_new = len(prompt) - n_before
        asked = (*chat.turns, Turn(tuple(chat.pending), line))
        self.stretches = self._stretches(llm._model, asked, len(prompt))
        request.say(Progress("reading", 0, n_new, "tokens", None,
                             self._session.holder.pace.seconds(n_new, n_before), n_before))
        return n_before

    def _publish(self, llm: LampeLlama) -> None:
        """Put in place what others see."""
        chat = self._chat
        self.turns, self.unsent, self.used = tuple(chat.turns), chat.unsent, chat.used
        self.stretches = self._stretches(llm._model, self.turns, self.used)

    def _stretches(
        self, model: Any, turns: Sequence[Turn], used: int
    ) -> tuple[tuple[str, int], ...]:
        """What lies where in a context of `used` tokens; model as in count_tokens."""
        found: list[tuple[str, int]] = []
        for turn in turns:
            for document in turn.documents:
                if document not in self._tokens:
                    self._tokens[document] = count_tokens(model, document.text)
                found.append((document.name, self._tokens[document]))
            found.append(("", count_tokens(model, turn.line + turn.answer)))
        if found:  # what the chat template adds belongs to the talk
            rest = used - sum(tokens for _, tokens in found)
            found[-1] = ("", max(0, found[-1][1] + rest))
        return tuple(found)


def _unheard(text: str) -> None:
    """What nobody waits for."""
