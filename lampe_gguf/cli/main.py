"""The command line: finds the command, and turns errors into one sentence and an exit code."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys

import click

from .. import __version__
from ..errors import LampeError
from ..shown import MESSAGE_LIMIT, shown
from . import console, stopping

# name -> summary: --help must not load the commands to list them
COMMANDS = {
    "convert": "Write LaMPE metadata into a GGUF model.",
    "strip": "Take the LaMPE metadata out again.",
    "inspect": "Show a model's LaMPE values and the mapping by length.",
    "ask": "Ask a question about documents of any length.",
    "chat": "Chat with a model, and with documents.",
    "chats": "List the chats that are kept, show one, or remove some.",
    "read": "Read documents ahead, so that questions about them need not wait.",
    "readings": "List or remove what was read of documents and is kept.",
    "desktop": "Open a window to ask long documents in.",
    "serve": "Serve a model to programs and browsers, by OpenAI's protocol.",
    "calibrate": "Find the constants that suit a model, by reading a long text.",
    "eval": "Measure perplexity and answers far beyond the training window.",
    "attention": "Look at attention beyond the window: its uncertainty and its pattern.",
    "bench": "Time reading and writing, LaMPE against stock attention.",
    "doctor": "Say whether the backend is the right one, and what would run.",
}

# a byte that is no text, as repr() has it in what click quotes; shown() has it as \xff
QUOTED_BYTE = re.compile(r"((?<!\\)(?:\\\\)*)\\udc([89a-f][0-9a-f])")

# what click raises where a group is called alone; before 8.2 it wrote the help by itself
NO_ARGUMENTS: type[click.ClickException] | tuple[()] = getattr(
    click.exceptions, "NoArgsIsHelpError", ())

HELP = """Read past a GGUF model's context window, without training.

\b
Convert once, then ask or chat as long as you like:
  lampe-gguf convert model.gguf
  lampe-gguf ask model.lampe.gguf --doc book.txt "Who wrote the letter?"
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{cmd_name}", __package__)
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lampe-gguf")
def group() -> None:
    pass


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 for a failure, 2 for wrong usage."""
    try:
        result = group.main(arguments, prog_name="lampe-gguf", standalone_mode=False)
        console.out(end="")
    except click.ClickException as error:
        if isinstance(error, NO_ARGUMENTS):  # the help, which is ours: nothing in it was typed
            with contextlib.suppress(OSError, ValueError):
                error.show()
            return error.exit_code
        console.say(_in_words(error), keep="\n")
        return error.exit_code
    except console.OutputError as error:
        console.discard_output()
        if error.reader_is_gone:  # | head: nothing to say
            return 141
        console.say(f"error: {error}")
        return error.exit_code
    except LampeError as error:
        console.say(f"error: {error}")
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        console.say("stopped", new_line=True)
        return 130
    return result if isinstance(result, int) else 0


def _in_words(error: click.ClickException) -> str:
    """What click has to say, in its lines; what was typed is no line of ours."""
    words = shown(QUOTED_BYTE.sub(r"\1\\x\2", error.format_message()), MESSAGE_LIMIT)
    # click would take a terminal's colours out of it, and nobody would know what was typed
    error.format_message = lambda: words  # type: ignore[method-assign]
    said = io.StringIO()
    error.show(said)
    return said.getvalue().rstrip()


def run() -> None:
    """Entry point of the installed program."""
    console.prepare()
    stopping.interruptible()
    code = main()
    stopping.leaving()
    sys.exit(code)


if __name__ == "__main__":
    run()
