#!/usr/bin/env python3
"""Write the command reference in lampe_gguf/cli, made from all commands' --help.

    .venv/bin/python tools/make_reference.py

README.md has every command but those that talk about documents, which have a page; the commands
below one, as eval's, have a page of its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
from arguments import run, tool

from lampe_gguf.cli.main import group

FOLDER = Path(__file__).resolve().parents[1] / "lampe_gguf" / "cli"
TALKING = ("ask", "chat", "chats", "read", "readings")  # in asking.md
WIDTH = 100  # of the texts, whatever terminal they are made in

HEAD = """# {title}

Every {what} and option, as `--help` says it. Made by `tools/make_reference.py`: change the help
texts, not this page.
"""


def below(command: click.Group, context: click.Context) -> Iterator[click.Context]:
    """The commands of a group, each in its context."""
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None, name
        yield click.Context(found, info_name=name, parent=context)


def section(context: click.Context) -> str:
    """One command: what is typed, and its help text."""
    return f"## {context.command_path}\n\n```text\n{context.get_help().rstrip()}\n```\n"


def pages() -> dict[str, str]:
    """File name and text of every page."""
    top = click.Context(
        group, info_name="lampe-gguf", terminal_width=WIDTH, max_content_width=WIDTH,
        **group.context_settings,
    )
    main_page = [HEAD.format(title="The commands", what="command"), section(top)]
    talking = [HEAD.format(title="Asking about documents", what="command")]
    found: dict[str, str] = {}
    for context in below(group, top):
        if context.info_name in TALKING:
            talking.append(section(context))
            continue
        main_page.append(section(context))
        if isinstance(context.command, click.Group):
            name, title = f"{context.info_name}.md", context.command_path
            parts = [HEAD.format(title=title, what=f"command of `{title}`")]
            parts += map(section, below(context.command, context))
            found[name] = "\n".join(parts)
            main_page.append(f"Its commands: [{name}]({name}).\n")
    names = ", ".join(f"`{name}`" for name in TALKING)
    main_page.insert(2, f"Documents and conversations ({names}): [asking.md](asking.md).\n")
    return {"README.md": "\n".join(main_page), "asking.md": "\n".join(talking), **found}


@tool(__doc__)
def main() -> None:
    """Write the pages."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run(main)
