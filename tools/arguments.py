"""The command lines of the tools that run in .venv: click, their docstrings, and one sentence."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click
from patched.arguments import count

from lampe_gguf.errors import LampeError


class Count(click.ParamType):  # type: ignore[type-arg]
    """A whole number above 0: of tokens, threads, rounds. Nothing is measured of none."""

    name = "n"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        try:
            return value if isinstance(value, int) else count(value)
        except argparse.ArgumentTypeError as error:
            self.fail(str(error), param, ctx)


COUNT = Count()


class Tool(click.Command):
    """A command whose help is a tool's docstring as it stands."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(f"\n{self.help}\n")


def tool(doc: str | None) -> Callable[[Callable[..., int | None]], Tool]:
    """Make a command of a tool's main function; `doc` is the tool's own docstring."""
    return click.command(cls=Tool, help=inspect.cleandoc(doc or ""),
                         context_settings={"help_option_names": ["-h", "--help"]})


def run(command: Tool) -> NoReturn:
    """Run a tool and leave: 0, 1 for a failure, 2 for wrong usage, 130 where it was stopped."""
    try:
        code = command.main(standalone_mode=False)
    except click.ClickException as error:
        print(f"error: {error.format_message()}", file=sys.stderr)
        sys.exit(error.exit_code)
    except LampeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        print("stopped", file=sys.stderr)
        sys.exit(130)
    sys.exit(code)
