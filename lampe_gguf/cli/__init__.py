"""The command line: the only place that imports click or writes to a terminal."""

from __future__ import annotations


def run() -> None:
    """Entry point of the installed program."""
    try:
        from .main import run as start
    except KeyboardInterrupt:  # Ctrl-C before there is anything to stop
        raise SystemExit(130) from None
    start()
