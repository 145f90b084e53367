"""lampe-gguf readings"""

from __future__ import annotations

import time

import click

from ..shown import duration, json_text, shown, size
from .console import out
from .options import TEXT

HELP = """List what was read of documents and is kept, the one used last first.

Each is a file with the state of a model behind these documents, which holds their text, as tokens;
those of 'serve' hold its conversations. The folder and what is in it can be read by you alone.

\b
Examples:
  lampe-gguf readings
  lampe-gguf readings --remove 3f0c9a1e
  lampe-gguf readings --remove all
"""


@click.command(name="readings", help=HELP)
@click.option("--remove", "removed", metavar="ID|all", multiple=True, type=TEXT,
              help="Remove one, by its id, or all; may be given several times.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(removed: tuple[str, ...], as_json: bool) -> None:
    from ..readings.keeping import Readings

    readings = Readings()
    gone = [entry for what in removed for entry in readings.remove(what)]
    entries = gone if removed else readings.entries()
    if as_json:
        out(json_text({
            "folder": str(readings.folder), "max_bytes": readings.max_bytes,
            "removed" if removed else "readings": [
                {"id": each.id, "documents": list(each.documents), "tokens": each.tokens,
                 "bytes": each.bytes, "model": each.model, "made": each.made, "used": each.used,
                 "seconds": each.seconds, "file": str(readings.store.path(each))}
                for each in entries
            ],
        }))
        return
    whole = size(sum(each.bytes for each in entries))
    if removed:
        out(f"removed {len(gone)}, {whole}")
        return
    for each in entries:
        age = duration(max(0.0, time.time() - each.used))
        names = ", ".join(shown(name, 60) for name in each.documents)
        out(f"{each.id}  {each.tokens:>9,} tokens  {size(each.bytes):>7}  used {age} ago  "
            f"{shown(each.model, 60)}  {names}")
    limit = size(readings.max_bytes or 0)
    out(f"{len(entries)} kept, {whole} of at most {limit}, in {shown(readings.folder)}")
