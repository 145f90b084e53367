"""Look for what was read before, and keep what was read now."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import api
from ..errors import LampeError, UsageError
from ..shown import shown, size
from . import limit, state
from .key import key_of
from .store import OnProgress, Reading, Store, reason

if TYPE_CHECKING:
    from ..backend.llama import LampeLlama

LEAST = 256  # tokens that are worth an entry: fewer are read in the time that a disk takes


@dataclass
class Readings:
    """What models have read of documents, kept on disk to be loaded instead of read again.

    folder       where; None: `readings` in $LAMPE_GGUF_CACHE, or in ~/.cache/lampe-gguf
    max_bytes    that they may take together, those used longest ago are removed first; None: what
                 $LAMPE_GGUF_READINGS_MAX says (as "10G"), else 10 GB; 0: look for and keep nothing
    least        tokens that are worth an entry
    on_note      called with a sentence where one could not be kept or loaded
    on_progress  called with (bytes, all of them) while one is loaded

    A reading depends on the model's file, on LaMPE's values, the types of the cache and the build
    of the backend, and is loaded for nothing else; a damaged one is removed and read anew. It
    holds the tokens of the documents, that is their text: the folder is the user's alone.

    >>> from pathlib import Path
    >>> from lampe_gguf import Readings, ask
    >>> kept = Readings(Path("kept"), max_bytes=10**9, least=16)
    >>> first = ask("model.gguf", "Who?", Path("book.txt"), max_tokens=4, readings=kept)
    >>> again = ask("model.gguf", "Where?", Path("book.txt"), max_tokens=4, readings=kept)
    >>> first.kept_tokens, again.kept_tokens > 500, len(kept.entries())
    (0, True, 1)
    """

    folder: Path | None = None
    max_bytes: int | None = None
    least: int = LEAST
    on_note: Callable[[str], None] = lambda text: None
    on_progress: OnProgress | None = None
    store: Store = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.store = Store(limit.folder() if self.folder is None else Path(self.folder))
        self.folder = self.store.folder
        if self.max_bytes is None:
            self.max_bytes = limit.most()

    @classmethod
    def of(cls, given: Readings | bool | str | os.PathLike[str] | None) -> Readings | None:
        """Readings from what a function was given: True for the usual folder, or a folder."""
        if given is None or given is False:
            return None
        if isinstance(given, Readings):
            return given
        return cls() if given is True else cls(Path(given))

    def entries(self) -> list[Reading]:
        """All that is kept, the one used last first; LampeError where the folder is unreadable."""
        try:
            return self.store.entries()
        except OSError as error:
            raise LampeError(f"cannot list the readings in {self.folder}: {error.strerror}; give "
                             f"another folder by ${limit.FOLDER}, or change its permissions"
                             ) from None

    def found(self) -> list[Reading]:
        """As entries(); none where the folder cannot be read, which keep() says."""
        with contextlib.suppress(OSError):
            return self.store.entries()
        return []

    def remove(self, what: str) -> list[Reading]:
        """Remove the entry of an id, or "all"; those that were. UsageError where there is none."""
        entries = self.entries()
        if what != "all":
            entries = [entry for entry in entries if entry.id == what]
            if not entries:
                raise UsageError(f"there is no reading {shown(what)}; 'lampe-gguf readings' lists "
                                 "those that there are")
        stayed: list[str] = []
        for entry in entries:
            try:
                self.store.remove(entry)
            except OSError as error:
                stayed.append(f"{self.store.path(entry)}: {error.strerror}")
        self.store.clean()
        if stayed:
            raise LampeError(f"cannot remove {', '.join(stayed)}")
        return entries

    def load(self, llm: LampeLlama, tokens: Sequence[int]) -> int:
        """Have a context hold as much of a prompt as was read before; how many tokens that is.

        0 where no entry has clearly more of it than the context has already, which stays as it
        is then.
        """
        if not self.max_bytes:
            return 0
        wanted = np.asarray(tokens, dtype=np.int32)
        has = n_shared(llm, tokens)
        if len(wanted) - has < self.least:
            return 0
        self.store.clean()
        if not self.found():
            return 0
        key = _key(llm)
        for entry, n_same, its_tokens in self._candidates(llm, key, wanted):
            if n_same - has < self.least:
                break
            if self._load(llm, entry, its_tokens, n_same):
                return n_same
            has = 0 if llm.n_tokens == 0 else has
        return 0

    def keep(
        self, llm: LampeLlama, documents: Sequence[str] = (), seconds: float = 0.0
    ) -> Reading | None:
        """Keep what a context holds, under the names of documents; None where it is not kept.

        seconds  that reading it took
        Where the disk does not take it, `on_note` gets a sentence and nothing is kept.
        """
        key = _key(llm) if self.max_bytes and llm.n_tokens else None
        if key is None:
            return None
        assert self.max_bytes is not None
        n_bytes = state.state_size(llm)
        if n_bytes > self.max_bytes:
            self.on_note(f"what was read is not kept: it takes {size(n_bytes)}, and readings may "
                         f"take {size(self.max_bytes)} (--readings-max)")
            return None
        try:
            self.store.make_room(n_bytes, self.max_bytes)
            self.store.require_space(n_bytes)
            entry = self.store.add(
                lambda path: state.write_state(llm, path), key=key, tokens=llm.n_tokens,
                documents=tuple(documents), model=Path(os.fsdecode(llm.model_path)).name,
                seconds=seconds,
            )
        except (OSError, LampeError) as error:
            self.on_note(f"what was read is not kept: {reason(error)}; the folder is "
                         f"{self.folder} (${limit.FOLDER} names another)")
            return None
        if not is_cuttable(llm):
            # what no window reaches any more is not in the file: go on from what others will have,
            # where sums come in the same order
            self._load(llm, entry, llm._input_ids.tolist(), llm.n_tokens)
        return entry

    def entry_of(self, llm: LampeLlama, tokens: Sequence[int]) -> Reading | None:
        """The entry that holds exactly these tokens, if there is one; it is not loaded."""
        for entry, n_same, its_tokens in self._candidates(llm, _key(llm), np.asarray(tokens)):
            if n_same == len(tokens) == len(its_tokens):
                return entry
        return None

    def _candidates(
        self, llm: LampeLlama, key: dict[str, Any] | None, wanted: Any
    ) -> list[tuple[Reading, int, list[int]]]:
        """Entries of a key, the tokens that each shares with a prompt and its own; best first."""
        found = []
        for entry in self.found() if key is not None else ():
            if entry.key != key or entry.tokens > llm.n_ctx():
                continue
            with self.store.opened(entry) as fd:
                if fd is None:
                    continue
                its_tokens = state.tokens_in(fd, entry.bytes)
            if its_tokens is None or len(its_tokens) != entry.tokens:
                self._remove_damaged(entry)
                continue
            n_same = shared(its_tokens, wanted)
            if n_same == entry.tokens or is_cuttable(llm, entry.tokens):
                found.append((entry, n_same, its_tokens.tolist()))
        return sorted(found, key=lambda each: -each[1])

    def _remove_damaged(self, entry: Reading) -> None:
        self.on_note(f"the kept reading {entry.id} is damaged; it is removed and read anew")
        with contextlib.suppress(OSError):
            self.store.remove(entry)

    def _load(
        self, llm: LampeLlama, entry: Reading, tokens: list[int], n_wanted: int
    ) -> bool:
        """Whether an entry was loaded; a damaged one is removed."""
        show = self.on_progress or (lambda done, total: None)

        def verified(done: int, total: int) -> None:
            show(min(done, total - 1), total)  # the last of it is that the backend takes it

        with self.store.opened(entry) as fd:
            if fd is None:
                return False
            if not self.store.is_whole(entry, fd, verified):
                self._remove_damaged(entry)
                return False
            # the very file that was looked at, whatever its name is of by now
            same = Path(f"/proc/self/fd/{fd}")
            try:
                state.read_state(llm, same if same.exists() else self.store.path(entry), tokens)
            except state.NoState as error:
                self.on_note(f"the kept reading {entry.id} cannot be loaded ({error}); it is "
                             "read anew")
                return False
        llm._is_mixed = False
        self.store.touch(entry)
        if n_wanted < len(tokens):
            if not llm._ctx.kv_cache_seq_rm(-1, n_wanted, -1):
                llm.reset()
                return False
            llm.n_tokens = n_wanted
        show(entry.bytes, entry.bytes)
        return True


def is_cuttable(llm: LampeLlama, n_tokens: int | None = None) -> bool:
    """Whether the state of so many tokens (None: of any number) can be cut back to fewer.

    Not where a window slides, for the tokens that it has left are not in the state, and not where
    a memory is recurrent, for it knows its end alone.
    """
    module, model = api.llama_cpp(), llm._model.model
    if module.llama_model_is_recurrent(model) or module.llama_model_is_hybrid(model):
        return False
    n_window = int(module.llama_model_n_swa(model))
    return n_window <= 0 or (n_tokens is not None and n_tokens <= n_window)


def _key(llm: LampeLlama) -> dict[str, Any] | None:
    with contextlib.suppress(OSError):  # a file that is gone: its model is still open
        return key_of(llm)
    return None


def n_shared(llm: LampeLlama, tokens: Sequence[int]) -> int:
    """How many of a prompt's first tokens a context holds already."""
    return shared(np.asarray(llm._input_ids), np.asarray(tokens))


def shared(a: Any, b: Any) -> int:
    """How many of the first of two lists of tokens are the same."""
    n = min(len(a), len(b))
    different = np.flatnonzero(np.asarray(a[:n]) != np.asarray(b[:n]))
    return int(different[0]) if len(different) else n
