"""lampe-gguf read"""

from __future__ import annotations

import time
from pathlib import Path

import click

from ..errors import UsageError
from ..shown import json_text, size
from .console import out, say
from .options import DOC, N_CTX, READINGS_MAX, THREAD_COUNT, THREADS, kept_readings
from .progress import progress_line

HELP = """Have MODEL read documents and keep that on disk, so that questions need not wait for it.

'ask' and 'chat' with the same documents first, in the same order, go on from there, whatever the
question. What is kept holds the documents' text, in a folder that is yours alone;
'lampe-gguf readings' lists and removes it.

\b
Examples:
  lampe-gguf read model.lampe.gguf --doc book.txt
  lampe-gguf read model.lampe.gguf --doc reports/
  lampe-gguf ask model.lampe.gguf --doc book.txt "Who wrote the letter?"
"""


@click.command(name="read", help=HELP)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--doc", "docs", multiple=True, metavar="FILE", required=True,
              help=DOC + "  - is standard input.")
@click.option("--threads", type=THREAD_COUNT, help=THREADS)
@N_CTX
@click.option("--no-lampe", is_flag=True, help="Plain RoPE, to see the difference.")
@READINGS_MAX
@click.option("--json", "as_json", is_flag=True, help="What was kept, as JSON.")
def command(
    model: Path, docs: tuple[str, ...], threads: int | None, n_ctx: int | None, no_lampe: bool,
    readings_max: int | None, as_json: bool,
) -> None:
    from ..conversation.ahead import read_ahead
    from ..conversation.documents import read_documents

    with progress_line("opening", "parts") as on_part:
        documents = read_documents(docs, to_ask=True, on_progress=on_part, on_note=say)
    start = time.monotonic()
    with (
        progress_line("counting", "characters") as on_count,
        progress_line("reading", "tokens") as on_progress,
        kept_readings(False, readings_max) as readings,
    ):
        if not readings.max_bytes:
            raise UsageError("readings may take 0 bytes of the disk; give --readings-max 10G, or "
                             "another LAMPE_GGUF_READINGS_MAX")
        done = read_ahead(
            model, documents, readings=readings, threads=threads, n_ctx=n_ctx,
            use_lampe=not no_lampe, on_count=on_count, on_progress=on_progress, on_note=say,
        )
    seconds = time.monotonic() - start
    entry = done.entry
    if as_json:
        out(json_text({
            "id": entry.id, "documents": list(entry.documents), "tokens": entry.tokens,
            "bytes": entry.bytes, "file": str(readings.store.path(entry)), "new": done.is_new,
            "kept_tokens": done.kept_tokens, "seconds": seconds,
        }))
        return
    what = "kept" if done.is_new else "kept before"
    out(f"{what}: {entry.tokens:,} tokens, {size(entry.bytes)}, as {entry.id}; "
        f"it took {seconds:.1f} s")
