"""Options that ask and chat share, and a kind of value that others do."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from ..container import paths
from ..errors import FieldError, LampeError, UsageError, how_to_add

F = TypeVar("F", bound=Callable[..., Any])


class NewFile(click.Path):
    """A file to be written at the end: that there is a place for it is seen at the beginning."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if paths.is_dir(path):
            self.fail(f"{path} is a directory; give the path of a file", param, ctx)
        if not paths.is_dir(path.parent):
            self.fail(f"there is no directory {path.parent}; make it, or give another path",
                      param, ctx)
        return path


class Picture(NewFile):
    """A PNG to be drawn at the end: that it can be drawn is seen at the beginning, too."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        if importlib.util.find_spec("matplotlib") is None:
            self.fail(f"plots need matplotlib, which is not installed; {how_to_add('plot')}",
                      param, ctx)
        return super().convert(value, param, ctx)


THREAD_COUNT = click.IntRange(1, 512)  # as many as the backend takes
MAX_TOKENS = 2**24  # the longest context there can be
MAX_FACTOR = 2**16

NEW_FILE = NewFile(path_type=Path)
PICTURE = Picture(path_type=Path)
THREADS = ("Processor threads; fewer where other programs compute too.  "
           "[default: all to read, one for each core to write]")


class Text(click.ParamType):  # type: ignore[type-arg]
    """Words for a model or a file: bytes that are no UTF-8 are replaced, which nothing takes."""

    name = "text"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        return str(value).encode(errors="surrogateescape").decode(errors="replace")


TEXT = Text()

DOC = """A document to read: text, PDF, DOCX, ODT, EPUB, HTML, or a folder or 'a pattern*' of them;
may be given several times."""
FIT = click.option(
    "--fit", type=click.Choice(["newest", "spread"]), help="Cut what does not fit: newest keeps "
    "the end of each document, spread pieces from everywhere.  [default: refuse it]")


class Number(click.FloatRange):
    """A number that is one: "nan" passes every comparison, and "inf" most."""

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r:.80} is not a finite number", param, ctx)
        return number


class Listed(click.ParamType):  # type: ignore[type-arg]
    """Values with commas between them, each once, in the order given."""

    name = "list"

    def __init__(self, kind: Any) -> None:
        self.kind = click.types.convert_type(kind)

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",") if part.strip()]
        if not parts:
            self.fail("it is empty; give values with commas between them", param, ctx)
        return tuple(dict.fromkeys(self.kind.convert(part, param, ctx) for part in parts))


@contextlib.contextmanager
def called_by_option(given: Mapping[str, Any]) -> Iterator[None]:
    """A value that an option gave and that is out of range is wrong usage of that option.

    So is one that no longer fits what was given: its field has the option's name too.
    """
    try:
        yield
    except FieldError as error:
        values = [name for name, value in given.items() if value is not None]
        if not values:
            raise
        option = "--" + error.field.replace("_", "-")
        if error.field in values:
            text = f"{option} is {error.value!r:.80}; it must be {error.allowed}"
        else:
            text = f"with what is given, {error.field} would be {error.value!r:.80}; it must be "
            text += error.allowed + (f": change {option} too" if error.field in given else "")
        raise UsageError(text) from None


class Servers(click.ParamType):  # type: ignore[type-arg]
    """HOST:PORT of RPC servers, with commas between them."""

    name = "servers"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        from ..backend.peers import require_endpoints

        if isinstance(value, tuple):
            return value
        try:
            return require_endpoints(str(value))
        except LampeError as error:
            self.fail(str(error), param, ctx)


RPC = click.option(
    "--rpc", type=Servers(), default=(), metavar="HOST:PORT,...",
    help="Other machines to compute with; each runs this build's RPC server.")


N_CTX = click.option(
    "--n-ctx", type=click.IntRange(1, MAX_TOKENS), help="Context length, tokens; up to what the "
    "file was converted for (convert --context-length).")
_OPTIONS = (
    click.option("--max-tokens", default=256, show_default=True,
                 type=click.IntRange(1, MAX_TOKENS), help="Longest answer."),
    click.option("--temperature", default=0.2, show_default=True, type=Number(0, 10),
                 help="0 for the likeliest answer."),
    click.option("--seed", type=click.IntRange(0, 2**32 - 2), help="For the same answer again."),
    click.option("--threads", type=THREAD_COUNT, help=THREADS),
    N_CTX,
    RPC,
    click.option("--no-lampe", is_flag=True, help="Plain RoPE, to see the difference."),
)


class Size(click.ParamType):  # type: ignore[type-arg]
    """Bytes: 10G, 500M, or 0."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        from ..readings.limit import parse_size

        return value if isinstance(value, int) else parse_size(str(value))


READINGS_MAX = click.option(
    "--readings-max", type=Size(), metavar="SIZE",
    help="What kept readings may take of the disk; those used longest ago go first.  "
         "[default: $LAMPE_GGUF_READINGS_MAX, or 10G]")
NO_READINGS = click.option(
    "--no-readings", is_flag=True,
    help="Do not keep what is read of documents, nor look for what was kept: it holds their text.")


def readings_options(function: F) -> F:
    """Add the options about kept readings to a command."""
    return NO_READINGS(READINGS_MAX(function))


@contextlib.contextmanager
def kept_readings(no_readings: bool, readings_max: int | None) -> Iterator[Any]:
    """The Readings that the options say, None for none; they show how far loading is."""
    if no_readings:
        yield None
        return
    from ..readings.keeping import Readings
    from .console import say
    from .progress import progress_line

    with progress_line("loading what was read before", "B") as on_progress:
        yield Readings(max_bytes=readings_max, on_note=say, on_progress=on_progress)


def generation_options(function: F) -> F:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
