"""lampe-gguf serve"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from ..shown import duration, shown, size
from .console import out, say
from .options import MAX_TOKENS, RPC, TEXT, THREAD_COUNT, readings_options
from .progress import Progress
from .stopping import stopping

HELP = """Serve MODEL to programs that speak OpenAI's or Anthropic's protocol, and to browsers.

It is llama.cpp's own server, built from the same patched source. A model that was not converted
gets what convert would write. Ctrl-C ends it.

It begins with what it had read when it ended last, and with what 'read' and 'ask' have kept for
this model; Ctrl-C keeps what its conversations hold, for you alone ('lampe-gguf readings' lists
it). --no-readings keeps nothing, and so do options of llama-server's own other than cache types.

\b
Examples:
  lampe-gguf serve model.gguf
  lampe-gguf serve model.gguf --ctx 16384 --parallel 1 -- --cache-type-k q8_0
  LLAMA_API_KEY=secret lampe-gguf serve model.gguf --host 0.0.0.0
"""

QUIET = 2.0  # seconds of loading that nothing is said of
LOG_WAIT = 2.0  # seconds that the log may be behind what it tells of
THREADS = "Processor threads.  [default: all to read, one for each core to write]"


@click.command(name="serve", help=HELP)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("options", nargs=-1, type=TEXT, metavar="[-- LLAMA-SERVER'S OPTIONS]")
@click.option("--host", default="127.0.0.1", show_default=True, type=TEXT,
              help="Where to listen; 0.0.0.0 lets other machines in, and then a key is needed.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535),
              help="0 for any that is free.")
@click.option("--api-key", envvar="LLAMA_API_KEY", default="", type=TEXT,
              help="What programs must know to be let in; better in $LLAMA_API_KEY, where other "
                   "users do not see it.")
@click.option("--ctx", type=click.IntRange(1, MAX_TOKENS),
              help="Context length of each conversation, tokens.  [default: the model's LaMPE "
                   "context length, or what the free memory holds]")
@click.option("--parallel", default=2, show_default=True, type=click.IntRange(1, 256),
              help="Conversations at a time, each with a context of its own.")
@click.option("--threads", type=THREAD_COUNT, help=THREADS)
@RPC
@click.option("--no-lampe", is_flag=True, help="Plain RoPE, to see the difference.")
@readings_options
@click.option("--verbose", is_flag=True, help="Show llama-server's log, on standard error.")
def command(
    model: Path, options: tuple[str, ...], host: str, port: int, api_key: str, ctx: int | None,
    parallel: int, threads: int | None, rpc: tuple[str, ...], no_lampe: bool,
    readings_max: int | None, no_readings: bool, verbose: bool,
) -> int:
    from ..model.choose import read_file
    from ..readings.keeping import Readings
    from ..serving.arguments import Wishes
    from ..serving.serve import plan, start
    from ..serving.slots import kept_slots

    wishes = Wishes(host=host, port=port, api_key=api_key, ctx=ctx, slots=parallel,
                    threads=threads, use_lampe=not no_lampe, rpc_servers=rpc, extra=options)
    # SIGTERM, too, unwinds the stack: no server stays behind
    with stopping():
        readings = None if no_readings else Readings(max_bytes=readings_max)
        file = read_file(model)
        wanted = plan(file, wishes, on_note=say)
        on_line: Any = say if verbose else (lambda line: None)
        with (
            kept_slots(file, wanted, readings, say) as (slots, planned),
            start(file, planned, on_line) as server,
        ):
            with _loading() as on_wait:
                server.wait_ready(on_wait)
            restored = slots.restore() if slots is not None else []
            if restored:
                n_tokens = sum(each.tokens for each in restored)
                out(f"kept      {n_tokens:,} tokens need not be read again (lampe-gguf readings)")
            _announce(planned, server.attention.path(LOG_WAIT))
            try:
                server.wait()
            except KeyboardInterrupt:
                kept = slots.keep() if slots is not None else []
                server.stop()
                said = f"; kept {len(kept)} reading{'s' * (len(kept) > 1)}" if kept else ""
                say(f"stopped{said}", new_line=True)
    return 0


class _Waiting(Progress):
    """How long it has been waited: llama-server does not say how far it is."""

    def text(self, seconds: float) -> str:
        return f"{self.label}  {duration(seconds)}"


@contextlib.contextmanager
def _loading() -> Iterator[Callable[[float], None]]:
    """A function of the seconds waited that says, after two of them, that it is loading."""
    bar = _Waiting("loading the model", 0, "s")
    bar.next = bar.start + QUIET
    try:
        yield lambda seconds: bar.advance(0)
    finally:
        bar.clear()


def attention_line(path: str, reason: str, use_lampe: bool) -> str:
    """Which attention runs, "" where nobody said."""
    if not use_lampe:
        return "attention plain RoPE, LaMPE off"
    why = f" ({shown(reason, 300)})" if reason else ""
    return f"attention {path}{why}" if path else ""


def memory_line(fitted: Any, slots: int, cache: int) -> str:
    """What it takes: the model, keys and values, and prompts that are kept, in bytes."""
    kv = "under 1 MB"  # llama.cpp counts in whole MiB
    if fitted.need.kv:
        each = fitted.need.kv / (fitted.n_ctx * slots)
        kv = f"{size(fitted.need.kv)} ({each:,.0f} bytes a token)"
    free = fitted.free["Host"]
    return (f"memory    model {size(sum(fitted.need.model.values()))}, keys and values {kv}, "
            f"earlier prompts up to {size(cache)}"
            + ("" if free is None else f"; {size(free)} were free"))


def _announce(planned: Any, path: tuple[str, str]) -> None:
    fitted, wishes = planned.fitted, planned.wishes
    each = f" for each of {wishes.slots} conversations" if wishes.slots > 1 else ""
    out(f"context   {fitted.n_ctx:,} tokens{each}")
    out(memory_line(fitted, wishes.slots, planned.cache))
    if attention := attention_line(*path, wishes.use_lampe):
        out(attention)
    out(f"browser   {shown(planned.url)}" + ("" if planned.page else "  (no page: see doctor)"))
    key = "your key" if wishes.api_key else "none"
    out(f"programs  OPENAI_BASE_URL={shown(planned.url)}/v1 OPENAI_API_KEY="
        + (f"<{key}>" if wishes.api_key else key))
    out("Ctrl-C ends it.")
