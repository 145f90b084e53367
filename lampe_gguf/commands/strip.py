"""lampe-gguf strip"""

from __future__ import annotations

from pathlib import Path

import click

HELP = """Write MODEL to OUTPUT without its LaMPE metadata: the file that was converted.

\b
Example:
  lampe-gguf strip model.lampe.gguf model.gguf
"""


@click.command(name="strip", help=HELP)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")
def command(model: Path, output: Path, force: bool) -> None:
    from ..strip import strip

    click.echo(f"wrote {strip(model, output, force=force)[0]}")
