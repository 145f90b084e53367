"""The command line: the only place that imports click or writes to a terminal."""

from __future__ import annotations


def run() -> None:
    """Entry point of the installed program."""
    from .main import run as start

    start()
