"""lampe-gguf strip"""

from __future__ import annotations

from pathlib import Path

import click

from ..shown import json_text, shown
from .console import out
from .writing import writing

HELP = """Write MODEL to OUTPUT without its LaMPE metadata: the file that was converted.

\b
Example:
  lampe-gguf strip model.lampe.gguf model.gguf
"""


@click.command(name="strip", help=HELP)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Say what was done as JSON.")
def command(model: Path, output: Path, force: bool, as_json: bool) -> None:
    from ..strip import strip_gguf

    with writing() as on_progress:
        done = strip_gguf(model, output, force=force, on_progress=on_progress)
    paths = [str(path) for path in done]
    out(json_text({"outputs": paths}) if as_json else f"wrote {shown(paths[0])}")
