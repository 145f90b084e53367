"""lampe-gguf eval passkey, niah, kv, lines, documents, ruler, tasks"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import say
from .options import Listed, Number
from .spelling import Respelled
from .task_options import (
    HAYSTACK,
    LENGTHS,
    LIMIT,
    OLD,
    RAW,
    READ_WITH,
    SEED,
    read_haystack,
    run_tasks,
    task_options,
)

if TYPE_CHECKING:
    from ..evaluate.tasks.item import Count, Item

PASSKEY_HELP = """Hide a number in sentences that say nothing, and ask for it.

The easiest test of whether a model still sees all of a long input. The honest baseline is the
method truncate: plain RoPE, given only the last window's worth of the same prompt.

\b
Example:
  lampe-gguf eval passkey model.gguf --lengths 8192,16384 --limit 10 --resume passkey.jsonl
"""

NIAH_HELP = """Needle in a haystack: a fact in a long real text, by length and depth.

Depth 0 is the text's beginning, 1 its end. --plot draws a heat map for each method.

\b
Example:
  lampe-gguf eval niah model.gguf --lengths 8192,16384 --depths 0,0.5,1 --plot niah.png
"""

KV_HELP = """Find the value of a key in a JSON object of random keys and values (InfiniteBench).

Nothing in the text helps but the key itself. Ten questions share an object, which is read once.

\b
Example:
  lampe-gguf eval kv model.gguf --lengths 4096,16384 --methods lampe,yarn,truncate
"""

LINES_HELP = """Find the number of a line in a register of them (LongEval's lines).

Nothing in the text helps but the line's name. Twenty questions share a register, which is read
once.

\b
Example:
  lampe-gguf eval lines model.gguf --lengths 4096,16384 --raw --read-with lampe \\
      --methods lampe,4096/1024,truncate
"""

DOCUMENTS_HELP = """Questions about many documents, each answered by one, by where that one stands.

--qa-passages names a JSONL with question, answers and what answers it: "context" (as SQuAD has
it), or "ctxs" (as the files of "Lost in the Middle", arXiv 2307.03172, have them:
qa_data/nq-open-oracle.jsonl, unpacked). All questions are about one text, which is read once. An
answer is right if it holds one that is expected.

\b
Example:
  lampe-gguf eval documents model.gguf --qa-passages nq-open-oracle.jsonl --lengths 16000 \\
      --raw --read-with lampe --methods lampe,truncate
"""

RULER_HELP = """The thirteen tasks of RULER (arXiv 2404.06654), made anew from a seed.

Retrieval (niah_*), tracing variables (vt), common and frequent words (cwe, fwe). The questions
qa_1 and qa_2 need passages: --qa-passages names a JSONL with question, context and answers, as
SQuAD (qa_1) and HotpotQA (qa_2) have them. The score is the share of the expected words and
numbers that an answer holds.

\b
Examples:
  lampe-gguf eval ruler model.gguf --lengths 8192,16384 --limit 10 --resume ruler.jsonl
  lampe-gguf eval ruler model.gguf --lengths 16384 --tasks vt,niah_multikey_1 --methods lampe,yarn
"""

TASKS_HELP = """Ask the questions of a published benchmark, from its own files.

FILE is a JSONL of L-Eval, LongBench or InfiniteBench; which, its fields say, and InfiniteBench's
task its name (kv_retrieval.jsonl). Each is scored by its own rules; summaries need
the extra "eval". Rows are by length: the power of two that holds prompt and answer.
Questions about one text are best kept together in the file: it is then read once.

\b
Example:
  lampe-gguf eval tasks model.gguf --jsonl hotpotqa.jsonl --limit 20 --resume hotpotqa.answers
"""


@click.command(name="passkey", help=PASSKEY_HELP)
@task_options(LENGTHS, LIMIT, SEED, READ_WITH, RAW)
def passkey_command(
    model: Path, lengths: tuple[int, ...], limit: int, seed: int, **options: Any
) -> None:
    from ..evaluate.tasks.passkey import passkey

    def generate(length: int, count: Count) -> Iterator[Item]:
        return passkey(length, count, limit=limit, seed=seed)

    run_tasks(model, generate, lengths, seed=seed, **options)


@click.command(name="niah", help=NIAH_HELP, cls=Respelled, old=OLD)
@task_options(
    LENGTHS,
    click.option("--depths", type=Listed(Number(0, 1)), default="0,0.25,0.5,0.75,1",
                 show_default=True, metavar="SHARE,...", help="Where the needle is."),
    click.option("--limit", type=click.IntRange(1), default=3, show_default=True,
                 help="Questions for each length and depth."),
    SEED, HAYSTACK, READ_WITH, RAW,
)
def niah_command(
    model: Path, lengths: tuple[int, ...], depths: tuple[float, ...], limit: int, seed: int,
    haystack: str | None, **options: Any,
) -> None:
    from ..evaluate.tasks.niah import niah

    hay = read_haystack(haystack)

    def generate(length: int, count: Count) -> Iterator[Item]:
        return niah(length, count, hay=hay, depths=depths, limit=limit, seed=seed)

    run_tasks(model, generate, lengths, seed=seed, by="depth", **options)


@click.command(name="kv", help=KV_HELP)
@task_options(LENGTHS, LIMIT, SEED, READ_WITH, RAW)
def kv_command(
    model: Path, lengths: tuple[int, ...], limit: int, seed: int, **options: Any
) -> None:
    from ..evaluate.tasks.kv import kv

    def generate(length: int, count: Count) -> Iterator[Item]:
        return kv(length, count, limit=limit, seed=seed)

    run_tasks(model, generate, lengths, seed=seed, **options)


@click.command(name="lines", help=LINES_HELP)
@task_options(
    LENGTHS,
    click.option("--limit", type=click.IntRange(1), default=20, show_default=True,
                 help="Questions for each length."),
    SEED, READ_WITH, RAW,
)
def lines_command(
    model: Path, lengths: tuple[int, ...], limit: int, seed: int, **options: Any
) -> None:
    from ..evaluate.tasks.lines import lines

    def generate(length: int, count: Count) -> Iterator[Item]:
        return lines(length, count, limit=limit, seed=seed)

    run_tasks(model, generate, lengths, seed=seed, by="quarter", **options)


@click.command(name="documents", help=DOCUMENTS_HELP)
@task_options(
    LENGTHS,
    click.option("--qa-passages", metavar="FILE", required=True,
                 help="A JSONL of questions with passages."),
    click.option("--limit", type=click.IntRange(1), default=40, show_default=True,
                 help="Questions for each length."),
    SEED, READ_WITH, RAW,
)
def documents_command(
    model: Path, lengths: tuple[int, ...], qa_passages: str, limit: int, seed: int, **options: Any
) -> None:
    from ..evaluate.tasks.documents import documents
    from ..evaluate.tasks.passages import read_passages
    from ..evaluate.tasks.records import read_records

    passages = read_passages(read_records(qa_passages))

    def generate(length: int, count: Count) -> Iterator[Item]:
        return documents(length, count, passages=passages, limit=limit, seed=seed)

    run_tasks(model, generate, lengths, seed=seed, by="quarter", **options)


@click.command(name="ruler", help=RULER_HELP, cls=Respelled, old=OLD)
@task_options(
    LENGTHS, LIMIT, SEED, HAYSTACK, READ_WITH, RAW,
    click.option("--tasks", type=Listed(str), metavar="NAME,...", help="[default: all]"),
    click.option("--qa-passages", metavar="FILE", help="A JSONL of questions with passages."),
)
def ruler_command(
    model: Path, lengths: tuple[int, ...], limit: int, seed: int, haystack: str | None,
    tasks: tuple[str, ...] | None, qa_passages: str | None, **options: Any,
) -> None:
    from ..errors import UsageError
    from ..evaluate.tasks.passages import read_passages
    from ..evaluate.tasks.records import read_records
    from ..evaluate.tasks.ruler import QA_TASKS, TASKS, ruler
    from ..evaluate.tasks.ruler_qa import asked_by

    for task in tasks or ():
        if task not in TASKS:
            raise UsageError(f"RULER has no task {task!r}; it is one of {', '.join(TASKS)}")
    passages = None if qa_passages is None else read_passages(read_records(qa_passages))
    chosen = tasks or TASKS
    left = [task for task in QA_TASKS if passages is None or not asked_by(task, passages)]
    if tasks is None and left:
        chosen = tuple(task for task in TASKS if task not in left)
        need = ("need --qa-passages FILE" if passages is None else
                f"have no question in {qa_passages}")
        say(f"left out, as they {need}: {', '.join(left)}")
    hay = read_haystack(haystack)

    def generate(length: int, count: Count) -> Iterator[Item]:
        return ruler(length, count, hay=hay, tasks=chosen, passages=passages, limit=limit,
                     seed=seed)

    run_tasks(model, generate, lengths, seed=seed, **options)


@click.command(name="tasks", help=TASKS_HELP)
@task_options(
    click.option("--jsonl", "files", required=True, multiple=True, metavar="FILE",
                 help="The records; may be given several times."),
    click.option("--limit", type=click.IntRange(1),
                 help="The first questions of each file alone."),
    click.option("--max-length", type=click.IntRange(1024), metavar="TOKENS",
                 help="Leave out questions that need more."),
    READ_WITH, RAW,
)
def tasks_command(
    model: Path, files: tuple[str, ...], limit: int | None, max_length: int | None, **options: Any
) -> None:
    from ..backend.vocabulary import vocabulary
    from ..errors import UsageError
    from ..evaluate.tasks.external import place, read_items
    from ..evaluate.tasks.prompting import Prompter
    from ..evaluate.tasks.records import read_records

    read = [item for file in files for item in read_items(read_records(file), file)[:limit]]
    with vocabulary(model) as vocab:
        items = list(place(read, Prompter(vocab, options["raw"]).count, max_length))
    if len(items) < len(read):
        say(f"{len(read) - len(items)} of {len(read)} questions need more than "
            f"{max_length:,} tokens and are left out")
    if not items:
        raise UsageError(
            f"there is no question left to ask of {', '.join(files)}; give a greater --max-length"
        )

    def generate(length: int, count: Count) -> list[Item]:
        return [item for item in items if item.length == length]

    run_tasks(model, generate, tuple(sorted({item.length for item in items})), **options)
