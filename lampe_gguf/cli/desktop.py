"""lampe-gguf desktop"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from .options import DOC, generation_options, readings_options

HELP = """Open a window to ask long documents in.

MODEL is a file that 'convert' wrote, or any GGUF: the window says what convert would write, uses
it, and changes no file. Left out, it is the one of the last time. Documents are dropped on the
window, and a model may be; conversations are kept as chat keeps them, and F1 shows all keys.

It needs the extra "desktop"; where that is missing, it says how to install it.

\b
Examples:
  lampe-gguf desktop
  lampe-gguf desktop model.gguf --doc report.pdf
"""

NO_QT = "the window needs PySide6, which is not installed; "
NO_SCREEN = ("there is no screen to show a window on ($DISPLAY and $WAYLAND_DISPLAY are empty); "
             "use 'lampe-gguf chat' here, or start it where there is one")


@click.command(name="desktop", help=HELP)
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("--doc", "docs", multiple=True, metavar="FILE", help=DOC)
@generation_options
@readings_options
@click.option("--settings", type=click.Path(path_type=Path), metavar="FILE",
              help="What the window remembers (last model, place, theme).  "
                   "[default: the user's settings]")
def command(
    model: Path | None, docs: tuple[str, ...], max_tokens: int, temperature: float,
    seed: int | None, threads: int | None, n_ctx: int | None, rpc: tuple[str, ...],
    no_lampe: bool, readings_max: int | None, no_readings: bool, settings: Path | None,
) -> int:
    from ..errors import LampeError, how_to_add

    if not _has_screen():
        raise LampeError(NO_SCREEN)
    _load()
    from ..desktop.screen import WHAT_TO_INSTALL
    from ..readings.keeping import Readings

    try:
        from ..desktop.app import Wishes, run
    except ImportError as error:
        if error.name is not None and error.name.partition(".")[0] in ("PySide6", "shiboken6"):
            raise LampeError(NO_QT + how_to_add("desktop")) from None
        raise LampeError(f"the window cannot be shown: {error}; {WHAT_TO_INSTALL}") from None
    readings = None if no_readings else Readings(max_bytes=readings_max)
    with _interruptions() as interrupted:
        return run(Wishes(
            model=str(model or ""), documents=docs, n_ctx=n_ctx, threads=threads, rpc_servers=rpc,
            use_lampe=not no_lampe, readings=readings, max_tokens=max_tokens,
            temperature=temperature, seed=seed, settings=str(settings or ""),
            interrupted=interrupted))


def _load() -> None:
    """Load what the session's threads need before there is a window that would have to wait.

    Before Qt, too: Shiboken looks into each module that is loaded after it.
    """
    import gguf.constants  # noqa: F401

    from ..backend import llama  # noqa: F401


def _has_screen() -> bool:
    """Whether there is one, or Qt was told to do without."""
    if not sys.platform.startswith("linux"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"))


@contextlib.contextmanager
def _interruptions() -> Iterator[int]:
    """A socket that becomes readable at Ctrl-C and SIGTERM, which close the window then.

    Python runs a handler when the interpreter has its turn, which Qt's loop does not give it.
    """
    ours, theirs = socket.socketpair()
    before = {}
    with ours, theirs:
        theirs.setblocking(False)
        waked = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, lambda *_: None)
            yield ours.fileno()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(waked)
