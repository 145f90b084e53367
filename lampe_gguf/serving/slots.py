"""A server's slots and the kept readings: restored when it has started, kept when it ends.

llama-server saves and restores a slot as a file of the very kind that a reading is, but for one
thing: it counts the streams of its cache, one for each slot, of which a reading has one.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..container.copying import copy_range, write_all
from ..container.leftovers import hidden_folder
from ..errors import LampeError
from ..model.architectures import qualifies
from ..model.choose import ModelFile
from ..readings import state
from ..readings.keeping import Readings, shared
from ..readings.key import is_since, make_key, parts
from ..readings.store import Reading, reason
from .serve import Plan

SECONDS = 60.0  # for one slot
NAMES = ("a conversation of lampe-gguf serve",)
PACKED = 1  # SERVER_TOKENS_STATE_VERSION
COUNT = struct.Struct("<I")

# what a LampeLlama has by default, which a server has as well where no option says otherwise
PARAMS: Mapping[str, Any] = {
    "type_k": 1, "type_v": 1, "flash_attn_type": 1, "kv_unified": False, "n_seq_max": 1,
    "rope_scaling_type": -1, "rope_freq_base": 0.0, "rope_freq_scale": 0.0,
    "yarn_ext_factor": -1.0, "yarn_attn_factor": 1.0, "yarn_beta_fast": 32.0,
    "yarn_beta_slow": 1.0, "yarn_orig_ctx": 0,
}
CACHES = {"-ctk": "type_k", "--cache-type-k": "type_k", "-ctv": "type_v",
          "--cache-type-v": "type_v"}
TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20,
         "bf16": 30}


class Slots:
    """The slots of one server that is going to be started.

    options  for llama-server
    on_note  called with a sentence where a reading could not be restored or kept
    """

    def __init__(
        self, file: ModelFile, planned: Plan, readings: Readings, folder: Path,
        key: dict[str, Any], on_note: Callable[[str], None],
    ) -> None:
        self.options = ["--slot-save-path", str(folder)]
        self._file, self._planned, self._folder = file, planned, folder
        self._readings, self._key, self._on_note = readings, key, on_note
        self._n_slots = planned.wishes.slots
        self._since = time.time()

    def restore(self) -> list[Reading]:
        """Give the readings that were used last to the slots; those that were taken."""
        taken: list[Reading] = []
        for entry in self._entries():
            if len(taken) == self._n_slots:
                break
            if entry.tokens >= self._planned.fitted.n_ctx:
                continue
            with self._readings.store.opened(entry) as fd:
                if fd is None or not self._readings.store.is_whole(entry, fd):
                    continue  # who asks next says so, and removes it
                name = f"{entry.id}.restore"
                try:
                    self._many_streams(fd, entry, self._folder / name)
                    self._act(len(taken), "restore", name)
                    taken.append(entry)
                except (OSError, ValueError, LampeError) as error:
                    self._on_note(f"the kept reading {entry.id} is not restored: {reason(error)}")
                finally:
                    (self._folder / name).unlink(missing_ok=True)
        return taken

    def keep(self) -> list[Reading]:
        """Keep what the slots hold beyond what is kept; those that were kept now.

        A slot that is answering is left alone.
        """
        kept: list[Reading] = []
        if not is_since(parts(self._file.path), self._since):
            return kept
        try:
            idle = [slot["id"] for slot in self._ask("/slots") if not slot["is_processing"]]
        except (OSError, ValueError, KeyError, TypeError):
            return kept
        for number in idle:
            name = f"{number}.save"
            try:
                self._act(number, "save", name)
                entry = self._keep(self._folder / name, number)
            except (OSError, ValueError, LampeError) as error:
                self._on_note(f"what slot {number} has read is not kept: {reason(error)}")
                continue
            finally:
                (self._folder / name).unlink(missing_ok=True)
            if entry is not None:
                kept.append(entry)
        return kept

    def _keep(self, saved: Path, slot: int) -> Reading | None:
        readings = self._readings
        fd = os.open(saved, os.O_RDONLY)
        try:
            size = os.fstat(fd).st_size
            packed = state.tokens_in(fd, size)
            tokens = None if packed is None else unpacked(packed)
            if packed is None or tokens is None or not self._is_new(tokens):
                return None
            mark = state.stream_at(0, self._key["lampe"] is not None) - state.HEAD
            start = state.HEAD + 4 * len(packed)
            skipped = start + mark + 4 * (1 + slot)
            length = size - skipped - 4 * (self._n_slots - 1 - slot)
            (n_cells,) = COUNT.unpack(os.pread(fd, 4, skipped))
            if n_cells != len(tokens):
                return None  # its newest token was never read
            head = struct.pack("<3I", state.MAGIC, state.VERSION, len(tokens)) + tokens.tobytes()
            head += os.pread(fd, mark, start) + COUNT.pack(1)

            def write(path: Path) -> None:
                target = os.open(path, os.O_WRONLY)
                try:
                    write_all(target, head, 0)
                    copy_range(fd, skipped, target, len(head), length)
                finally:
                    os.close(target)

            limit = readings.max_bytes or 0
            if size > limit:
                return None
            readings.store.make_room(size, limit)
            readings.store.require_space(size)
            return readings.store.add(
                write, key=self._key, tokens=len(tokens), documents=NAMES,
                model=self._file.path.name, seconds=0.0)
        finally:
            os.close(fd)

    def _is_new(self, tokens: Any) -> bool:
        """Whether so much of these is in no entry that they are worth one."""
        known = 0
        for entry in self._entries():
            with self._readings.store.opened(entry) as fd:
                its = None if fd is None else state.tokens_in(fd, entry.bytes)
            if its is not None:
                known = max(known, shared(its, tokens))
        return len(tokens) - known >= self._readings.least and bool((tokens >= 0).all())

    def _many_streams(self, fd: int, entry: Reading, path: Path) -> None:
        """A reading as a slot of this server would be saved."""
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            copy_range(fd, 0, target, 0, entry.bytes)
            if self._n_slots > 1:
                at = state.stream_at(entry.tokens, self._key["lampe"] is not None)
                write_all(target, COUNT.pack(self._n_slots), at)
                write_all(target, bytes(4 * (self._n_slots - 1)), entry.bytes)
        finally:
            os.close(target)

    def _entries(self) -> list[Reading]:
        return [entry for entry in self._readings.found() if entry.key == self._key]

    def _act(self, slot: int, action: str, name: str) -> None:
        self._ask(f"/slots/{slot}?action={action}", {"filename": name})

    def _ask(self, path: str, data: Mapping[str, Any] | None = None) -> Any:
        key = self._planned.wishes.api_key
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self._planned.url + path, body, headers)
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return json.loads(answer.read())


@contextlib.contextmanager
def kept_slots(
    file: ModelFile, planned: Plan, readings: Readings | None,
    on_note: Callable[[str], None] = lambda text: None,
) -> Iterator[tuple[Slots | None, Plan]]:
    """The slots of a server and the plan to start it with; None where nothing is kept of them.

    That is where nobody wants it, where the disk does not take it, where options of
    llama-server's own may change what it computes, and where it has several slots and layers with
    a sliding window, whose files have another order.
    """
    key = None
    if readings is not None and readings.max_bytes:
        with contextlib.suppress(OSError):
            key = server_key(file, planned)
    if readings is None or key is None:
        yield None, planned
        return
    with contextlib.ExitStack() as stack:
        try:
            readings.store.require_space(0)
            readings.store.clean()
            folder = stack.enter_context(hidden_folder(readings.store.folder))
        except OSError as error:
            on_note(f"no readings are kept: {reason(error)}")
            yield None, planned
            return
        slots = Slots(file, planned, readings, folder, key, on_note)
        yield slots, replace(planned, arguments=[*planned.arguments, *slots.options])


def server_key(file: ModelFile, planned: Plan) -> dict[str, Any] | None:
    """The key of what a server has read: that of a LampeLlama of the same values, or None."""
    wishes = planned.wishes
    caches = _caches(wishes.extra)
    if caches is None or not planned.url.startswith("http://"):
        return None
    if wishes.slots > 1 and (_slides(file) or qualifies(file.info.architecture, file.info.values)):
        return None
    config = None
    if wishes.use_lampe:
        config = replace(file.config, length_policy="causal")  # as it is served
    length = file.info.values.get(
        f"{file.info.architecture}.rope.scaling.original_context_length")
    is_long = isinstance(length, int) and planned.fitted.n_ctx > length
    # where it is another path, the backend refuses the state
    return make_key(
        parts(file.path), config, "off" if config is None else "fused", {**PARAMS, **caches},
        overrides={}, is_long=is_long)


def unpacked(packed: Any) -> Any:
    """The tokens of a slot as a server saves them, None where there is more than text.

    It writes -1, a version, how many, the tokens, and how many pictures and sounds there are.
    """
    if len(packed) < 4 or packed[:2].tolist() != [-1, PACKED]:
        return None
    n = int(packed[2])
    return packed[3:-1] if n == len(packed) - 4 and packed[-1] == 0 else None


def _caches(extra: Any) -> dict[str, int] | None:
    """The types of the cache that llama-server's own options say; None where they say more."""
    found: dict[str, int] = {}
    words = [part for option in extra for part in option.split("=", 1)]
    while words:
        name = CACHES.get(words.pop(0))
        kind = TYPES.get(words.pop(0)) if words else None
        if name is None or kind is None:
            return None
        found[name] = kind
    return found


def _slides(file: ModelFile) -> bool:
    return bool(file.info.values.get(f"{file.info.architecture}.attention.sliding_window"))
