"""lampe-gguf convert"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..container import paths
from ..errors import UsageError
from ..huggingface.checkpoint import QUANTS, as_gguf, is_checkpoint
from ..method.fields import LENGTH_POLICIES, METHODS
from ..model.presets import PRESETS
from ..shown import json_text, shown
from .console import out, say
from .options import TEXT, called_by_option
from .writing import writing

if TYPE_CHECKING:
    from ..convert import Conversion

HELP = """Write MODEL again with LaMPE metadata, to OUTPUT (MODEL.lampe.gguf if left out).

The values are those found for this model where there are any, else safe defaults derived
from its training window; each can be given by hand. Everything else in the file stays as it
is, and stock llama.cpp reads the result as before.

MODEL may be a Hugging Face checkpoint folder too; llama.cpp's own converter and quantiser make a
GGUF of it first.

\b
Examples:
  lampe-gguf convert SmolLM2-135M-Instruct.Q4_1.gguf
  lampe-gguf convert model.gguf --local-window 1024 --context-length 65536
  lampe-gguf convert SmolLM2-135M-Instruct/ --quantize q4_k_m
"""


@click.command(name="convert", help=HELP)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path), required=False)
@click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Say what was done as JSON.")
@click.option("--quantize", type=click.Choice(QUANTS), metavar="TYPE",
              help="Of a checkpoint folder: q8_0, q4_k_m, ...  [default: f16]")
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Values found for one model.")
@click.option("--method", type=click.Choice(METHODS), help="A neighbour of LaMPE's instead.")
@click.option("--window", type=int, help="W: the training window, tokens.")
@click.option("--context-length", type=int, help="Longest input to support, tokens.")
@click.option("--local-window", type=int, help="s1: distances up to it stay exact.")
@click.option("--tail-window", type=int, help="s2: the far end, exact again but shifted.")
@click.option("--max-mapping-length", type=float, help="L: upper bound of the mapping length.")
@click.option("--slope", type=float, help="a of the scaled sigmoid.")
@click.option("--offset", type=float, help="b of the scaled sigmoid.")
@click.option("--short-length", type=int, help="Below it, the next option's value is m; 0: never.")
@click.option("--short-mapping-length", type=int, help="m below --short-length, at most W.")
@click.option("--attention-factor", type=float, help="Multiplies cos and sin; 1 by default.")
@click.option("--length-policy", type=click.Choice(LENGTH_POLICIES), help="Which length counts.")
@click.option("--length-step", type=int, help="Granularity of the length under 'causal'.")
@click.option("--group-size", type=int, help="G of the method 'selfextend'.")
@click.option("--provenance", type=TEXT, help="Where the values come from, in your own words.")
def command(
    model: Path, output: Path | None, force: bool, as_json: bool, quantize: str | None,
    preset: str | None, **values: Any,
) -> None:
    from ..convert import convert_gguf

    given = {name: value for name, value in values.items() if value is not None}
    options = {"preset": preset, "force": force, **given}
    if paths.is_dir(model) and not is_checkpoint(model):
        raise UsageError(f"{model} is a folder without config.json; give a GGUF file, or the "
                         "folder of a Hugging Face checkpoint")
    if quantize is not None and not is_checkpoint(model):
        raise UsageError(
            f"--quantize is for checkpoint folders, and {model} is none; convert keeps the "
            "tensors of a GGUF as they are"
        )
    with called_by_option(values), writing() as options["on_progress"]:
        if is_checkpoint(model):
            done = _convert_checkpoint(model, output, quantize, options)
        else:
            done = convert_gguf(model, output, **options)
    config = done.config
    if as_json:
        import dataclasses

        result = {
            "outputs": [str(path) for path in done.outputs],
            "architecture": done.architecture,
            "replaced": done.replaced,
            "config": dataclasses.asdict(config),
        }
        out(json_text(result))
        return
    say(config.provenance)
    say(
        f"window {config.window}, up to {config.context_length} tokens; "
        f"local {config.local_window}, tail {config.tail_window}, "
        f"mapping length up to {config.max_mapping_length:g}, {config.length_policy}"
    )
    verb = "replaced the LaMPE metadata in" if done.replaced else "wrote"
    out(f"{verb} {shown(done.outputs[0])}")


def _convert_checkpoint(
    folder: Path, output: Path | None, quantize: str | None, options: dict[str, Any]
) -> Conversion:
    """Its GGUF is made beside the output, which is NAME-TYPE.lampe.gguf beside the folder."""
    from ..container.atomic import check_target
    from ..convert import convert_gguf
    from ..huggingface.checkpoint import DEFAULT

    folder = folder.resolve()
    name = f"{folder.name}-{quantize or DEFAULT}.lampe.gguf"
    target = folder.with_name(name) if output is None else output
    if paths.is_dir(target):
        target = target / name
    # converting takes minutes: say now what would be said after it
    check_target(target, options["force"])

    def stage_begins(stage: str) -> None:
        say(f"{stage} ...")

    with as_gguf(folder, quantize, target.resolve().parent, stage_begins) as made:
        return convert_gguf(made, target, **options)
