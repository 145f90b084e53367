"""lampe-gguf inspect"""

from __future__ import annotations

from pathlib import Path

import click

from ..shown import json_text
from .console import out, say
from .options import PICTURE

HELP = """Show what MODEL's file says about LaMPE, and the mapping by length.

Works on models that are not converted yet, too: then it shows what convert would write.

\b
Examples:
  lampe-gguf inspect model.lampe.gguf
  lampe-gguf inspect model.lampe.gguf --plot mapping.png
"""


@click.command(name="inspect", help=HELP)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--plot", type=PICTURE, help="Draw the mapping into a PNG.")
def command(model: Path, as_json: bool, plot: Path | None) -> None:
    from ..inspect import as_dict, as_text, inspect_gguf

    found = inspect_gguf(model)
    if as_json:
        out(json_text(as_dict(found)))
    else:
        out(as_text(found))
    if plot is not None:
        from ..errors import LampeError
        from ..plot import plot_mapping

        if found.config is None:
            raise LampeError(f"there is no mapping to draw: {found.reason}")
        plot_mapping(found.config, [row.length for row in found.rows], plot)
        say(f"wrote {plot}")
