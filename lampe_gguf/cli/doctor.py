"""lampe-gguf doctor"""

from __future__ import annotations

import dataclasses

import click

from ..shown import MESSAGE_LIMIT, json_text, shown
from .console import out

HELP = """Say whether the patched backend is installed, and what would run on this machine.

Exits with 0 where all is right and with 1 where it is not.

\b
Examples:
  lampe-gguf doctor --json
  lampe-gguf doctor --architectures
"""


@click.command(name="doctor", help=HELP)
@click.option("--architectures", is_flag=True,
              help="Which architectures LaMPE can extend, and why not the others.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(architectures: bool, as_json: bool) -> int:
    from ..backend.doctor import examine

    if architectures:
        show_architectures(as_json)
        return 0
    report = examine()
    if as_json:
        out(json_text(dataclasses.asdict(report)))
    else:
        out(f"backend    {shown(report.version or 'none')}")
        if report.library:
            out(f"library    {shown(report.library)}")
        if report.build:
            out(f"build      {shown(report.build)}")
        for device in report.devices:
            out(f"device     {shown(device)}")
        if report.cpu_features:
            out(f"cpu        {' '.join(report.cpu_features)}")
        if report.path:
            out(f"attention  {shown(report.path)}")
        if report.server:
            out(f"server     {shown(report.server, MESSAGE_LIMIT)}")
        if report.page:
            out(f"page       {shown(report.page, MESSAGE_LIMIT)}")
        if report.peer:
            out(f"peer       {shown(report.peer, MESSAGE_LIMIT)}")
        problem = f"problem    {shown(report.problem, MESSAGE_LIMIT)}"
        out(problem if report.problem else "all is right")
    return 0 if report.ok else 1


def show_architectures(as_json: bool) -> None:
    """The table that convert refuses by."""
    from ..model.architectures import table

    rows = table()
    if as_json:
        out(json_text([dataclasses.asdict(row) for row in rows]))
        return
    for row in rows:
        verdict = "yes" if row.qualifies else "no"
        out(f"{row.name:<18} {verdict:<4} {row.remark}".rstrip())
