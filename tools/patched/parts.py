"""Which parts of a build are wanted besides the library: llama-server, and its page."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass

from .report import Failure

VARIABLE = "LAMPE_GGUF_SERVER"
CHOICES = ("page", "plain", "none")  # the server with its page, without, and no server


@dataclass(frozen=True)
class Parts:
    """What is built beside the library."""

    server: bool = True
    page: bool = True  # where npm is


NOTHING = Parts(server=False, page=False)


def add_options(parser: argparse.ArgumentParser) -> None:
    """--no-server and --no-page, for `remember`."""
    group = parser.add_mutually_exclusive_group()
    for choice, name, what in (
        ("none", "--no-server", "leave llama-server out, which takes minutes to compile"),
        ("plain", "--no-page", "build llama-server without its page, which needs Node and npm"),
    ):
        group.add_argument(name, dest="server", action="store_const", const=choice,
                           help=f"{what} (${VARIABLE}={choice})")


def remember(options: argparse.Namespace) -> None:
    """Let what the options say hold for all that this program starts, too."""
    if getattr(options, "server", None):
        os.environ[VARIABLE] = options.server


def chosen() -> Parts:
    """What $LAMPE_GGUF_SERVER says; without it, all of it."""
    given = os.environ.get(VARIABLE) or CHOICES[0]
    if given not in CHOICES:
        raise Failure(f"${VARIABLE} is {given!r}; it must be one of {', '.join(CHOICES)}.")
    return Parts(server=given != "none", page=given == "page")
