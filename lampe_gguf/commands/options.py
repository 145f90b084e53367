"""Options that ask and chat share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--max-tokens", default=256, show_default=True, type=click.IntRange(1),
                 help="Longest answer."),
    click.option("--temperature", default=0.2, show_default=True, type=click.FloatRange(0, 10),
                 help="0 for the likeliest answer."),
    click.option("--seed", type=int, help="For the same answer again."),
    click.option("--threads", type=click.IntRange(1), help="Processor threads."),
    click.option("--n-ctx", type=click.IntRange(1), help="Context length, tokens."),
    click.option("--no-lampe", is_flag=True, help="Plain RoPE, to see the difference."),
)


def generation_options(function: F) -> F:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
