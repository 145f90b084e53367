"""lampe-gguf chats"""

from __future__ import annotations

import json
import sys

import click

from ..shown import json_text, visible
from .console import out, say

HELP = """List the chats that are kept, the latest first; show one as Markdown, or remove some.

\b
A chat is kept as it goes, in the folder $LAMPE_GGUF_CHATS. Without that, it
is lampe-gguf/chats where the system has a user's data: in ~/.local/share,
~/Library/Application Support, or %LOCALAPPDATA%.

\b
Examples:
  lampe-gguf chats
  lampe-gguf chats --show last > talk.md
  lampe-gguf chats --remove 20260114-153012-3fa2c1
"""


@click.command(name="chats", help=HELP)
@click.option("--json", "as_json", is_flag=True,
              help="The list as JSON; with --show, the conversation as /save writes it.")
@click.option("--show", metavar="ID",
              help="Show one: its id or the beginning of it, last, or a file that /save wrote.")
@click.option("--remove", multiple=True, metavar="ID",
              help="Remove one for good; may be given several times.")
def command(as_json: bool, show: str | None, remove: tuple[str, ...]) -> None:
    from ..conversation import shelf
    from ..conversation.kept import as_json as conversation_json
    from ..errors import UsageError

    if remove:
        if show is not None or as_json:
            raise UsageError("--remove goes with no other option; look at the chats first")
        for name in remove:
            shelf.remove(name)
            say(f"removed {name}")
    elif show is not None:
        path = shelf.find(show)
        found = shelf.read(path)
        for note in found.notes:
            say(note)
        if as_json:
            text = conversation_json(found, found.setting, started=found.started)
            out(json_text(json.loads(text)))
            return
        text = shelf.as_markdown(found, found.id or path.name)
        out(visible(text) if sys.stdout.isatty() else text, end="")
    else:
        listed = shelf.entries()
        if as_json:
            out(json_text([shelf.as_dict(each) for each in listed]))
        elif listed:
            out(shelf.as_table(listed))
        else:
            say(f"no chat is kept in {shelf.folder()}")
