"""A model in a thread of its own, and a second thread for files."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from ..backend.vocabulary import vocabulary
from ..conversation import shelf
from ..conversation.chat import Chat
from ..conversation.documents import Document
from ..conversation.kept import Conversation
from ..conversation.length import count_up_to
from ..conversation.session import longest_input
from ..errors import LampeError
from ..method.fields import MAX_LENGTH
from ..model.choose import ModelFile, read_file
from ..readings.keeping import Readings
from .dialogue import Dialogue
from .found import Counted, Examined, Opened
from .holder import Holder
from .request import Request
from .worker import Worker

_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


class Session:
    """A model for a program that must not wait: every method returns at once.

    model      opened right away, see `open`; None: later
    n_ctx      context length, tokens; None: 16,384, at most what the model supports. A question
               that needs more has the model opened anew, with a longer one
    threads    of the processor; None: all to read, one for each core to write
    use_lampe  False: plain RoPE, to see the difference
    readings   keep what was read of documents, as `ask` has it: True, a folder, or Readings
    rpc_servers  HOST:PORT of machines to compute with, as LampeLlama has them

    What is asked gives a Request, in any thread. One thread opens the model and computes with it,
    one request after the other; a second reads files, counts and lists meanwhile. `close` cancels
    all and frees the model; so does the end of a `with`.

    opening    the request of the model that was given, None without one
    readings   as Readings, None where nothing is kept

    >>> from lampe_gguf import Session
    >>> with Session("model.gguf") as session:
    ...     found = session.opening.result()
    ...     print(found.architecture, found.window, found.n_ctx, found.is_converted)
    llama 8192 16384 False
    """

    def __init__(
        self, model: str | os.PathLike[str] | None = None, *, n_ctx: int | None = None,
        threads: int | None = None, use_lampe: bool = True,
        readings: Readings | bool | str | os.PathLike[str] | None = None,
        rpc_servers: Sequence[str] = (),
    ) -> None:
        self.readings = Readings.of(readings)
        self.holder = Holder(n_ctx, threads, use_lampe, rpc_servers)
        self._vocabulary = _Vocabulary()
        self._asked_for: str | os.PathLike[str] | None = None  # the model to be open
        self._use_lampe = use_lampe
        self._chats: list[Chat] = []  # whose journals are to be closed
        self._dialogues: weakref.WeakSet[Dialogue] = weakref.WeakSet()
        self.computing = Worker("computing", partial(_let_go, self.holder, self._chats))
        self.files = Worker("files", self._vocabulary.close)
        _workers.update((self.computing, self.files))
        # nobody holds it any more: the threads end
        weakref.finalize(self, _close, (self.computing, self.files)).atexit = False
        self.opening: Request[Opened] | None = None if model is None else self.open(model)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def opened(self) -> Opened | None:
        """The model that is open, None while there is none."""
        return self.holder.opened

    @property
    def is_closed(self) -> bool:
        """Whether close() was called."""
        return self.computing.is_closing

    def open(self, model: str | os.PathLike[str]) -> Request[Opened]:
        """Open a model, in the place of the one that is open. Progress "loading".

        A file without LaMPE's values gets those that convert_gguf would write. Fails, and leaves
        the other open, where the file is none or LaMPE cannot extend the model.
        """
        self._asked_for = model
        return self.computing.submit("open", lambda request: self.holder.open(request, model))

    def examine(self, model: str | os.PathLike[str]) -> Request[Examined]:
        """What a model's file is; nothing is opened."""
        return self.files.submit("examine", lambda request: Examined.of(read_file(model)))

    def dialogue(
        self, *, keep: bool = False, max_tokens: int = 256, temperature: float = 0.2,
        seed: int | None = None,
    ) -> Dialogue:
        """A new conversation; there may be several.

        keep         keep what is said as it goes, where `lampe-gguf chats` lists it
        max_tokens   longest answer, tokens
        temperature  0 for the likeliest answer
        seed         for the same answers again
        """
        return Dialogue(self, Conversation(), keep=keep, max_tokens=max_tokens,
                        temperature=temperature, seed=seed)

    def resume(self, source: str | os.PathLike[str], *, keep: bool = True) -> Request[Dialogue]:
        """Go on with a conversation: a kept one's id, "last", or a file that was saved.

        keep  keep the rest of it, too
        A Note for each thing that is lost, and each document whose file has changed since.
        """
        def job(request: Request[Dialogue]) -> Dialogue:
            found, journal = shelf.go_on(os.fspath(source), keep=keep, on_note=request.note)
            for note in (*found.notes, *found.changed_documents()):
                request.note(note)
            return Dialogue(self, found, journal, keep=keep)

        return self.files.submit("resume", job)

    def chats(self) -> Request[list[shelf.ChatEntry]]:
        """The conversations that are kept, the one used last first."""
        return self.files.submit("chats", lambda request: shelf.entries())

    def remove_chat(self, id: str) -> Request[None]:
        """Remove a kept conversation, by its whole id; where it is this session's, it is closed."""
        mine = [each for each in list(self._dialogues) if each.id == id]
        for dialogue in mine:
            dialogue.close()
        worker = self.computing if mine else self.files  # behind the closing
        return worker.submit("remove", lambda request: shelf.remove(id))

    def seconds_to_read(self, n_tokens: int) -> float | None:
        """About how long the model takes to read so many tokens; None while that is not known."""
        return self.holder.pace.seconds(n_tokens)

    def cancel(self) -> None:
        """Cancel everything that goes on or waits."""
        self.computing.cancel()
        self.files.cancel()

    def close(self, *, wait: bool = True) -> None:
        """Cancel everything, free the model, and wait until that is done, within a second or so.

        wait  False: return at once
        What is asked of a closed session fails.
        """
        workers = (self.computing, self.files)
        _close(workers)
        if wait:
            for worker in workers:
                worker.join()

    def take(self, dialogue: Dialogue, chat: Chat) -> None:
        """A dialogue was begun, whose journal is to be closed when the session is."""
        self._dialogues.add(dialogue)
        self._chats.append(chat)

    def let_go(self, dialogue: Dialogue, chat: Chat) -> None:
        """It is closed."""
        self._dialogues.discard(dialogue)
        if chat in self._chats:
            self._chats.remove(chat)

    def vocabulary(self) -> Any:
        """That of the model, as the internal LlamaModel, for the thread of files; None: none."""
        file = self._counted_with()
        return None if file is None else self._vocabulary.of(file)

    def count(self, request: Request[Any], documents: Sequence[Document]) -> tuple[Counted, ...]:
        """The tokens of documents; for the thread of files, which need not wait for the other."""
        file = self._counted_with()
        if file is None:
            return tuple(map(Counted, documents))
        longest, window = longest_input(file, self._use_lampe)
        limit = longest or window
        model = self._vocabulary.of(file)
        total = sum(len(each.text) for each in documents)
        show, done = request.progress("counting", "characters"), 0
        counted = []
        for document in documents:
            tokens = count_up_to(model, [document.text], MAX_LENGTH,
                                 lambda part, _: show(done + part, total)).tokens  # noqa: B023
            done += len(document.text)
            counted.append(Counted(document, tokens, tokens / limit if limit else None))
        return tuple(counted)

    def _counted_with(self) -> ModelFile | None:
        """The model that is being opened, or is open; None where there is neither."""
        if self._asked_for is not None:
            with suppress(LampeError):  # what is wrong with it, its own request says
                file = self._vocabulary.file(self._asked_for)
                longest_input(file, self._use_lampe)
                return file
        return self.holder.file


class _Vocabulary:
    """The vocabulary of the model that was counted with last."""

    def __init__(self) -> None:
        self._file: ModelFile | None = None
        self._model: Any = None
        self._stack = ExitStack()

    def file(self, path: str | os.PathLike[str]) -> ModelFile:
        """The header of a file, that was read before where it was the last one."""
        if self._file is not None and os.fspath(self._file) == os.fspath(path):
            return self._file
        return read_file(path)

    def of(self, file: ModelFile) -> Any:
        if file is not self._file:
            self.close()
            self._model = self._stack.enter_context(vocabulary(file))
            self._file = file
        return self._model

    def close(self) -> None:
        self._stack.close()
        self._file = self._model = None


def _let_go(holder: Holder, chats: list[Chat]) -> None:
    holder.close()
    for chat in chats:
        if chat.journal is not None:
            chat.journal.close()
    chats.clear()


def _close(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.close()


@atexit.register
def _end() -> None:
    """Threads that compute while the interpreter goes would take the process with them."""
    workers = list(_workers)
    _close(workers)
    for worker in workers:
        worker.join(5)
