"""Run the backend's long computations in a thread, so that Ctrl-C need not wait for their end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable


def run_aside(work: Callable[[], None], stop: Callable[[], None], name: str) -> None:
    """Call `work` in a thread and wait; raises what it raises.

    stop  called where the waiting is interrupted (Ctrl-C); it must make `work` end soon, which
          is waited for before the interruption goes on
    """
    raised: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)
        finally:
            done.set()

    # An event and not Thread.join: before Python 3.13, Ctrl-C in join() takes the thread for
    # finished (bpo-45274), and the context would be in use twice.
    threading.Thread(target=run, name=name).start()
    try:
        while not done.wait(0.05):
            pass
    except BaseException:
        stop()
        while not done.is_set():
            with contextlib.suppress(KeyboardInterrupt):
                done.wait(0.05)
        raise
    if raised:
        raise raised[0]
