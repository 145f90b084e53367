"""One spelling for one thing on the command line; the old ones work, unlisted, and say so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from conftest import call

from lampe_gguf.cli.main import COMMANDS, group

BOOK = "It was a dark and stormy night. " * 6


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(BOOK, encoding="utf-8")
    return path


def all_commands() -> list[tuple[str, click.Command]]:
    ctx = click.Context(group)
    found = []
    for name in COMMANDS:
        command = group.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += [(f"{name} {each}", command.commands[each]) for each in command.commands]
        else:
            found.append((name, command))
    return found


# convert --method NAME is a value of the model, as --window is; --methods is what to measure
DIFFERENT = {"--method"}


def test_one_name_and_one_form_for_each_option() -> None:
    names: dict[str, str] = {}
    for name, command in all_commands():
        for option in command.params:
            if not isinstance(option, click.Option):
                continue
            spelled = option.opts[0]
            # what may come several times are files, as their names may have commas in them, and
            # what is to be removed
            assert not option.multiple or option.metavar in ("FILE", "ID", "ID|all"), spelled
            other = names.setdefault(spelled.rstrip("s"), spelled)
            assert other == spelled or other in DIFFERENT, f"{spelled} of {name} beside {other}"


@pytest.mark.parametrize("old, new", [
    (["--length", "64"], ["--lengths", "64"]),
    (["--length=64"], ["--lengths=64"]),
    (["--length", "99", "--length", "64"], ["--lengths", "99,64"]),
])
def test_bench(tiny: Callable[..., Path], old: list[str], new: list[str]) -> None:
    model = tiny()
    options = ["--rounds", "1", "--decode", "2", "--json"]
    before, after = call("bench", model, *old, *options), call("bench", model, *new, *options)
    assert before.returncode == after.returncode == 0, before.stderr
    found = [[x["length"] for x in json.loads(done.stdout)["comparisons"]]
             for done in (before, after)]
    assert found[0] == found[1]
    assert before.stderr.startswith("--length is spelled --lengths now: --lengths 64") or (
        "--lengths 99,64" in before.stderr)
    assert "spelled" not in after.stderr


def test_ppl(tiny: Callable[..., Path], book: Path) -> None:
    base = ["eval", "ppl", tiny(), "--text", book, "--json"]
    before = call(*base, "--length", "99", "--method", "rope")
    after = call(*base, "--lengths", "99", "--methods", "rope")
    assert before.returncode == after.returncode == 0, before.stderr
    assert before.stderr.splitlines()[:2] == [
        "--length is spelled --lengths now: --lengths 99",
        "--method is spelled --methods now: --methods rope"]
    # as it was: one run is no list where it was not asked for as one
    one, (run,) = json.loads(before.stdout), json.loads(after.stdout)["runs"]
    assert one["all"] == run["all"] and one["method"] == run["method"] == "rope"
    mixed = json.loads(call(*base, "--length", "99", "--methods", "rope").stdout)
    assert mixed["runs"][0]["all"] == run["all"]


def test_niah(tiny: Callable[..., Path], tmp_path: Path) -> None:
    for option in ("--haystack", "--text"):
        done = call("eval", "niah", tiny(), option, tmp_path / "nosuch.txt")
        assert done.returncode == 1 and "cannot read" in done.stderr
        assert ("--haystack is spelled --text now" in done.stderr) == (option == "--haystack")


@pytest.mark.parametrize("command", [["bench"], ["eval", "ppl"], ["eval", "niah"]])
def test_the_old_spelling_is_not_listed(command: list[str]) -> None:
    text = call(*command, "--help").stdout
    assert "--lengths" in text
    for old in ("--length ", "--method ", "--haystack"):
        assert old not in text


def test_what_follows_two_dashes_is_no_option(tiny: Callable[..., Path]) -> None:
    done = call("bench", "--", tiny(), "--length", "64")
    assert done.returncode == 2 and "unexpected extra arguments" in done.stderr.lower()
    assert "spelled" not in done.stderr
