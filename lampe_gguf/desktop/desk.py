"""What is going on: the session, its model, the conversations, and the requests under way.

Nothing here waits, and nothing here draws: what the session says comes through the relay, and goes
on as signals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal

from lampe_gguf import (
    Answered,
    ChatEntry,
    Dialogue,
    Document,
    Examined,
    Failed,
    Finished,
    LampeError,
    Note,
    Opened,
    Progress,
    Request,
    Session,
    Stopped,
    Token,
)

from .notice import ERROR, INFO, Way
from .relay import Relay
from .talk import Talk, figures
from .words import file_name

End = Callable[[Any], None]
NO_LAMPE = ("LaMPE cannot extend this model: {}; open another one, or start with --no-lampe to "
            "read within its window")
NOTED_LATER = ("add", "resume")  # requests whose notes are said when they are over
UNSENT = "The last question of this conversation has no answer yet."
STOPPED_UNSENT = "Stopped before there was an answer; the question is kept."


class Desk(QObject):
    """Asks the session, and says by signals what comes of it, on the UI thread.

    changed   the model, the conversations or the documents may be others
    turned    another conversation is the current one
    began     a line of a Talk is being answered; `wrote` more of it, `ended` it is over
    working   a Progress, a sentence, or None where nothing runs
    noted     a sentence, its kind, and the ways out: (what a button says, what it does)
    """

    changed = Signal()
    turned = Signal()
    began = Signal(object)
    wrote = Signal(object, str)
    ended = Signal(object)
    working = Signal(object)
    noted = Signal(str, str, list)

    def __init__(self, session: Session, relay: Relay, *, needs_lampe: bool = True,
                 max_tokens: int = 256, temperature: float = 0.2, seed: int | None = None) -> None:
        super().__init__()
        self.session = session
        self.relay = relay
        self._needs_lampe = needs_lampe  # else models that LaMPE refuses are opened, too
        self._sampling: dict[str, Any] = {
            "max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        self._running: dict[int, tuple[Request[Any], str]] = {}
        self.examined: Examined | None = None
        self.doing = ""  # to the model
        self.talks: list[Talk] = []
        self.chats: list[ChatEntry] = []
        self.reading: tuple[Talk, int, int] | None = None  # tokens in the context, now and then
        self._is_listing = self._list_again = False
        self._notes: list[str] = []  # of the request under way, of those in NOTED_LATER
        self.current = self._new_talk()

    def close(self, then: Callable[[], None]) -> None:
        """End everything; `then` is called when that is done."""
        self.relay.in_background(self.session.close, lambda events: then())

    @property
    def opened(self) -> Opened | None:
        """The model that is open."""
        return self.session.opened

    @property
    def is_busy(self) -> bool:
        """Whether something runs or waits."""
        return bool(self._running)

    def stop(self) -> None:
        """End what runs and what waits, whatever it is."""
        self.session.cancel()

    # -- the model --

    def open(self, path: str | Path) -> None:
        """Look at a model's header, and open it where LaMPE can extend it."""

        def end(event: Any) -> None:
            if isinstance(event, Finished) and not (event.result.refusal and self._needs_lampe):
                self._load(path, event.result)
            elif isinstance(event, Finished):
                self._model_failed(path, NO_LAMPE.format(event.result.refusal))
            elif isinstance(event, Failed):
                self._model_failed(path, str(event.error))
            else:
                self._model_stopped(path)

        self.doing = f"looking at {file_name(path)}"
        self._start(self.session.examine(path), f"Looking at {file_name(path)}", end)

    def _load(self, path: str | Path, examined: Examined) -> None:
        def end(event: Any) -> None:
            self.doing = ""
            if isinstance(event, Finished):
                self.examined = None
                self._count_again()
            elif isinstance(event, Failed):
                self._model_failed(path, str(event.error))
            else:
                self._model_stopped(path)

        self.examined, self.doing = examined, "loading"
        self._start(self.session.open(path), f"Loading {file_name(path)}", end)

    def _model_failed(self, path: str | Path, why: str) -> None:
        self.examined, self.doing = None, ""
        self.noted.emit(f"{file_name(path)} is not open: {why}", ERROR, [])

    def _model_stopped(self, path: str | Path) -> None:
        self.examined, self.doing = None, ""
        self.noted.emit(f"Stopped: {file_name(path)} is not open.", INFO,
                        [("Open it", lambda: self.open(path))])

    def _count_again(self) -> None:
        """Tokens are the model's: those of another one are others."""
        for talk in self.talks:
            if not talk.is_empty:
                self._start(talk.dialogue.recount(), "Counting the tokens", self._said)

    # -- conversations --

    def _new_talk(self, dialogue: Dialogue | None = None) -> Talk:
        if dialogue is None:
            dialogue = self.session.dialogue(keep=True, **self._sampling)
        talk = Talk(dialogue)
        self.talks.insert(0, talk)
        return talk

    def new(self) -> None:
        """Turn to a conversation in which nothing was said."""
        empty = next((talk for talk in self.talks if talk.is_empty), None)
        self._turn(empty or self._new_talk())

    def turn_to(self, which: Talk | str) -> None:
        """Turn to a conversation that is open, or to one that is kept."""
        if isinstance(which, str):
            known = next((talk for talk in self.talks if talk.dialogue.id == which), None)
            if known is None:
                self._start(self.session.resume(which), "Opening the conversation", self._resumed)
                return
            which = known
        self._turn(which)

    def _resumed(self, event: Any) -> None:
        if isinstance(event, Finished):
            talk = self._new_talk(event.result)
            if self.opened is not None:
                self._start(talk.dialogue.recount(), "Counting the tokens", self._said)
            self._turn(talk, self._take_notes())
        elif isinstance(event, Failed):
            self.noted.emit(str(event.error), ERROR, [])

    def _take_notes(self) -> list[str]:
        notes, self._notes = self._notes, []
        return notes

    def _turn(self, talk: Talk, notes: Sequence[str] = ()) -> None:
        """`notes`: what is to be said about a conversation that is gone on with."""
        if talk is not self.current:
            before, self.current = self.current, talk
            if before.is_empty and before in self.talks:
                self._let_go(before)
            self.turned.emit()
            is_unsent = talk.dialogue.unsent is not None and not talk.is_asking
            said = [*notes, *([UNSENT] if is_unsent else [])]
            if said:
                self.noted.emit("\n".join(said), INFO, self._ways(talk) if is_unsent else [])
        self.changed.emit()

    def _let_go(self, talk: Talk) -> None:
        self.talks.remove(talk)
        talk.dialogue.close()

    def remove(self, which: Talk | str) -> None:
        """Remove a conversation, from the disk too."""
        talk = which if isinstance(which, Talk) else None
        chat = which.dialogue.id if isinstance(which, Talk) else which
        if talk is not None:
            if talk is self.current:
                self.current = self._new_talk()
                self.turned.emit()
            self._let_go(talk)
        if chat:
            self._start(self.session.remove_chat(chat), "Removing the conversation", self._said)
        self.list_chats()
        self.changed.emit()

    def _said(self, event: Any) -> None:
        if isinstance(event, Failed):
            self.noted.emit(str(event.error), ERROR, [])
        self.list_chats()

    def list_chats(self) -> None:
        """Look which conversations are kept; once more where that is being done."""
        if self._is_listing:
            self._list_again = True
            return
        self._is_listing = True

        def take(events: list[Any]) -> None:
            for event in events:
                if isinstance(event, Finished):
                    self.chats = list(event.result)
                elif isinstance(event, Failed):
                    self.noted.emit(str(event.error), ERROR, [])
                if isinstance(event, (Finished, Failed, Stopped)):
                    self._is_listing = False
                    self.changed.emit()
                    if self._list_again or isinstance(event, Stopped):
                        self._list_again = False
                        self.list_chats()

        self.relay.follow(self.session.chats(), take)

    # -- documents --

    def add(self, paths: Sequence[str | Path | Document]) -> None:
        """Add files, folders or texts to the conversation."""
        texts = [each if isinstance(each, Document) else Path(each) for each in paths]
        first = texts[0]
        what = file_name(first) if isinstance(first, Path) and len(texts) == 1 else "the documents"
        talk = self.current
        talk.adding += 1

        def end(event: Any) -> None:
            talk.adding -= 1
            self._added(event)

        self._start(talk.dialogue.add(texts), f"Opening {what}", end)

    def _added(self, event: Any) -> None:
        notes = self._take_notes()
        if isinstance(event, Finished):
            # the panel says what was read; what was not, is to be said
            known = {each.document.said() for each in event.result if not each.document.left_out
                     and not each.document.replaced}
            if more := [note for note in notes if note not in known]:
                self.noted.emit("\n".join(more), INFO, [])
        elif isinstance(event, Failed):
            self.noted.emit(str(event.error), ERROR, [])
        elif isinstance(event, Stopped):
            self.noted.emit("Stopped: the documents were not added.", INFO, [])
        self.list_chats()

    def take_out(self, document: Document) -> None:
        """Take a document out again that was not read yet."""
        self.current.dialogue.remove(document)
        self.changed.emit()

    # -- answers --

    def ask(self, line: str) -> None:
        """Have a line answered in the current conversation."""
        talk = self.current
        self._ask(talk, line, lambda: talk.dialogue.ask(line))

    def retry(self) -> None:
        """Have the line answered that has no answer."""
        talk = self.current
        if talk.dialogue.unsent is not None and not talk.is_asking:
            self._ask(talk, talk.dialogue.unsent, talk.dialogue.retry)

    def _ask(self, talk: Talk, line: str, begin: Callable[[], Request[Answered]]) -> None:
        talk.line, talk.written = line, ""
        talk.documents = tuple(file_name(each.document.name)
                               for each in talk.dialogue.pending)

        def end(event: Any) -> None:
            self._answered(talk, event)

        request = begin()
        talk.asking = request
        self.began.emit(talk)
        self._start(request, "Waiting for the model", end, talk)

    def _answered(self, talk: Talk, event: Any) -> None:
        talk.asking = None
        answer = None if isinstance(event, Failed) else event.result
        if answer is not None:
            talk.figures[len(talk.dialogue.turns) - 1] = figures(answer)
        if self.reading is not None and self.reading[0] is talk:
            self.reading = None
        self.ended.emit(talk)
        if isinstance(event, Failed):
            self.noted.emit(str(event.error), ERROR, self._ways(talk))
        elif answer is None:
            self.noted.emit(STOPPED_UNSENT, INFO, self._ways(talk))
        self.list_chats()

    def _ways(self, talk: Talk) -> list[Way]:
        if talk is not self.current or talk.dialogue.unsent is None:
            return []
        return [("Ask again", self.retry)]

    # -- requests --

    def _start(self, request: Request[Any], what: str, end: End, talk: Talk | None = None) -> None:
        """Follow a request: what it says goes on as signals, `end` gets its last event."""
        self._running[id(request)] = (request, what)
        self.working.emit(what)
        self.changed.emit()

        def take(events: list[Any]) -> None:
            self._hand_on(request, events, end, talk)

        self.relay.follow(request, take)

    def _hand_on(self, request: Request[Any], events: list[Any], end: End, talk: Talk | None
                 ) -> None:
        progress = next((each for each in reversed(events) if isinstance(each, Progress)), None)
        if progress is not None:
            if talk is not None and progress.stage == "reading":
                before = progress.before
                self.reading = (talk, before + progress.done, before + progress.total)
            self.working.emit(progress)
        text = "".join(each.text for each in events if isinstance(each, Token))
        if text and talk is not None:
            talk.written += text
            self.wrote.emit(talk, text)
            self.working.emit("Writing the answer")
        for event in events:
            if isinstance(event, Note) and request.kind in NOTED_LATER:
                self._notes.append(event.text)
            elif isinstance(event, Note):
                self.noted.emit(event.text, INFO, [])
            elif isinstance(event, (Finished, Stopped, Failed)):
                self._running.pop(id(request), None)
                try:
                    end(event)
                except LampeError as error:
                    self.noted.emit(str(error), ERROR, [])
                rest = list(self._running.values())
                self.working.emit(rest[-1][1] if rest else None)
                self.changed.emit()
