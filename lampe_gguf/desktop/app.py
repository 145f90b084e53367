"""Starts the program: what it remembers, the session, the window, and their end."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QSocketNotifier, QThreadPool
from PySide6.QtWidgets import QApplication

from lampe_gguf import LampeError, Readings, Session

# what the session's threads would load later, while the window is there, and a library that is
# being loaded holds Python's lock
from lampe_gguf import LampeLlama as _loaded  # noqa: F401

from .desk import Desk
from .memory import ORGANISATION, Memory
from .pauses import ASK, Pauses
from .relay import Relay
from .screen import why_no_window
from .window import Window

SWITCH = 0.001  # seconds after which a working thread lets the UI thread go on
LAST_WRITES = 2000  # milliseconds that what is to be remembered has to get to the disk


@dataclass(frozen=True)
class Wishes:
    """What the program is started with.

    model, documents     to open at once; without a model, the last one is opened
    settings             a file for what is remembered; "" for the user's own
    rpc_servers          of other machines, as Session has them
    readings             as Session has it; None keeps nothing
    interrupted          a socket that becomes readable when the program is to end, None for none
    """

    model: str = ""
    documents: Sequence[str] = ()
    n_ctx: int | None = None
    threads: int | None = None
    rpc_servers: Sequence[str] = ()
    use_lampe: bool = True
    readings: Readings | bool | None = True
    max_tokens: int = 1024
    temperature: float = 0.2
    seed: int | None = None
    settings: str = ""
    interrupted: int | None = None


def make_window(wishes: Wishes) -> Window:
    """The window with its session; the application is there already. Shown it is not yet."""
    memory = Memory(wishes.settings)
    session = Session(n_ctx=wishes.n_ctx, threads=wishes.threads, use_lampe=wishes.use_lampe,
                      rpc_servers=wishes.rpc_servers, readings=wishes.readings)
    desk = Desk(session, Relay(), needs_lampe=wishes.use_lampe,
                max_tokens=wishes.max_tokens, temperature=wishes.temperature, seed=wishes.seed)
    window = Window(desk, memory)
    model = wishes.model or memory.text("model")
    if model:
        window.open_model(os.path.abspath(model))
    if wishes.documents:
        desk.add([os.path.abspath(each) for each in wishes.documents])
    return window


def run(wishes: Wishes) -> int:
    """Show the window until it is closed; returns the exit code.

    LampeError where there can be no window.
    """
    if QApplication.instance() is None and (why := why_no_window()):
        raise LampeError(why)
    application = QApplication.instance() or QApplication(sys.argv[:1])
    assert isinstance(application, QApplication)
    application.setApplicationName(ORGANISATION)
    application.setDesktopFileName(ORGANISATION)
    application.setStyle("Fusion")
    application.setQuitOnLastWindowClosed(False)  # the session ends after the window
    sys.setswitchinterval(SWITCH)
    window = make_window(wishes)
    window.closed.connect(application.quit)
    if wishes.interrupted is not None:
        notifier = QSocketNotifier(wishes.interrupted, QSocketNotifier.Type.Read, window)
        notifier.activated.connect(window.close)
    pauses = None
    if os.environ.get(ASK):
        pauses = Pauses(os.environ[ASK], lambda: window.activity.label.text().partition(":")[0])
    window.show()
    code = application.exec()
    QThreadPool.globalInstance().waitForDone(LAST_WRITES)
    if pauses is not None:
        pauses.write()
    return code
