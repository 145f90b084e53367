"""Conversions that are interrupted: by signals, a kill or a failing disk, at any moment.

Every name has a whole file afterwards, the old one or the new one, and, but after a kill, all
names of a split model have the same of the two. The next run leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .parts import STRING, Pair, Parts, Tensor, text

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG)
CALLS = ("pwrite", "copy_file_range", "fsync", "replace", "link", "open")
SLOW = ("pwrite", "copy_file_range", "fsync", "replace", "link", "unlink")  # for signals to hit
LONGEST = 30.0  # seconds
N_PARTS = 3


class Faults:
    """`done` of the `tried` conversions came to their end before the fault."""

    def __init__(self, folder: Path) -> None:
        from lampe_gguf.convert import convert_gguf as convert

        self.folder = folder
        self.found = folder / "work"
        self.tried = self.done = 0
        self.sources = folder / "sources"
        self.sources.mkdir()
        self.plain = self._model("plain.gguf", 1)
        self.split = self._model("split-{:05d}-of-00003.gguf", N_PARTS)
        self.expected: dict[str, bytes] = {}
        self.seconds = 0.05  # that a conversion takes, about
        for source in (self.plain, self.split):
            convert(source)
        for path in self.sources.glob("*.lampe*"):
            self.expected[path.name] = path.read_bytes()
            path.unlink()

    def _model(self, name: str, count: int) -> Path:
        paths = []
        for number in range(count):
            pairs = [Pair(b"general.architecture", STRING, text(b"llama")),
                     Pair(b"llama.context_length", 4, struct.pack("<I", 4096))]
            if count > 1:
                pairs += [Pair(b"split.no", 2, struct.pack("<H", number)),
                          Pair(b"split.count", 2, struct.pack("<H", count))]
            data = random.Random(number).randbytes(1 << 18)
            tensors = [Tensor(b"t%d" % number, (len(data) // 4,), 0, 0)]
            path = self.sources / name.format(number + 1)
            path.write_bytes(Parts(pairs, tensors, data).encode())
            paths.append(path)
        return paths[0]

    def try_one(self, rng: random.Random) -> str | None:
        self.tried += 1
        work = self.found
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        source = rng.choice((self.plain, self.split))
        names = [n for n in self.expected if n.startswith(source.name.partition("-")[0][:5])]
        old: dict[str, bytes | None] = dict.fromkeys(names)
        if rng.random() < 0.7:
            for number, name in enumerate(names):
                old[name] = b"old %d" % number
                (work / name).write_bytes(b"old %d" % number)
        fault = rng.choice((*SIGNALS, "error"))
        code = self._run(source, work, fault, rng)
        found = {name: self._read(work / name) for name in names}
        new = {name: self.expected[name] for name in names}
        for name in names:
            if found[name] not in (old[name], new[name]):
                return f"{fault}: {name} is neither the old file nor the new one"
        killed = code == -signal.SIGKILL
        if not killed and found not in (old, new):
            return f"{fault}: some names are new and some are old: {sorted(os.listdir(work))}"
        if code == 0 and found != new:
            return f"{fault}: it said that all went well"
        self.done += code == 0
        others = set(os.listdir(work)) - {name for name in names if found[name] is not None}
        if others and not killed and isinstance(fault, str):
            return f"{fault}: left behind: {others}"
        self._next_run(work)
        # a set of which the kill left a part in place is whole after it
        found = {name: self._read(work / name) for name in names}
        if found not in (old, new):
            return f"{fault}: after the next run some names are new and some are old"
        others = set(os.listdir(work)) - {name for name in names if found[name] is not None}
        if others != {"next"}:
            return f"{fault}: the next run leaves {others}"
        for path in self.sources.iterdir():
            if path.name in self.expected or path.name.startswith("."):
                return f"{fault}: {path.name} among the sources"
        return None

    def _next_run(self, work: Path) -> None:
        from lampe_gguf.container.atomic import write_file

        write_file(work / "next", b"", force=True)

    def _read(self, path: Path) -> bytes | None:
        return path.read_bytes() if path.exists() else None

    def _run(self, source: Path, work: Path, fault: int | str, rng: random.Random) -> int:
        """The child's exit code, negative for a signal."""
        from lampe_gguf.cli import main as cli

        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                os.close(ready)
                quiet = os.open(os.devnull, os.O_RDWR)
                for fd in (0, 1, 2):
                    os.dup2(quiet, fd)
                slowly(rng)
                if fault == "error":
                    failing(rng)
                os.write(told, b".")
                code = cli.main(["convert", str(source), str(work) + os.sep, "--force"])
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 98
            except KeyboardInterrupt:
                code = 130
            except BaseException:
                code = 97
            finally:
                os._exit(code)
        os.close(told)
        os.read(ready, 1)
        os.close(ready)
        begin = time.monotonic()
        if not isinstance(fault, str):
            time.sleep(rng.uniform(0, self.seconds))
            os.kill(pid, fault)
        start = time.monotonic()
        found = status = 0
        while not found:
            found, status = os.waitpid(pid, os.WNOHANG)
            if time.monotonic() - start > LONGEST:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            self.seconds += 0.1 * (min(1.0, time.monotonic() - begin) - self.seconds)
        return code

    def close(self) -> None:
        pass


def slowly(rng: random.Random) -> None:
    """Have some system calls take their time in this process."""
    pause = rng.choice((0.0, 0.001, 0.005))
    for name in rng.choice((SLOW, SLOW[-3:])) if pause else ():
        replace_call(name, lambda: time.sleep(pause), lambda: time.sleep(pause))


def failing(rng: random.Random) -> None:
    """Have one system call of this process fail, and those of its kind after it, too."""
    name, left = rng.choice(CALLS), rng.randrange(6)
    code = rng.choice(ERRORS)
    # where no rename succeeds any more, none can be undone
    once = name == "replace" or rng.random() < 0.5

    def before() -> None:
        nonlocal left
        left -= 1
        if left == -1 or (left < 0 and not once):
            raise OSError(code, os.strerror(code))

    replace_call(name, before, lambda: None)


def replace_call(name: str, before: Callable[[], None], after: Callable[[], None]) -> None:
    """Have something happen around a function of `os`."""
    real = getattr(os, name, None)
    if real is None:
        return

    def call(*given: Any, **more: Any) -> Any:
        before()
        try:
            return real(*given, **more)
        finally:
            after()

    setattr(os, name, call)
