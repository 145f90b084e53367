"""The house's rules, read off the imports: where a line belongs, and what may stand there.

Every rule is a function over a tree of files, which gives what breaks it in sentences: the tests
at the end run them on the repository, and on copies of it that break each rule once.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").is_file())
PACKAGE = "lampe_gguf"

# The floors, from the ground up. An arrow, an import, runs down: from a room into one on a lower
# floor, never into its neighbours.
FLOORS = (
    ("errors", "shown", "old_names"),
    ("method", "container"),
    ("model",),
    ("backend",),
    ("convert", "strip", "inspect", "plot", "readings"),
    ("conversation", "serving"),
    ("evaluate", "session"),
    ("attention", "calibration", "bench", "huggingface"),
    ("__init__",),  # the public names: those above may use them, nothing below may
    ("desktop",),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# What a room may import at all, where it is less than what lies below it.
OURS = {"method": {"errors"}, "container": {"errors"}}
OTHERS = {"method": {"numpy"}}

# Outside cli/, nothing talks to a terminal; the reason stands beside what does.
TALKS = {
    "bench/side.py": "a program of its own: what it prints is its report to compare.py",
    "conversation/extract.py": "a program of its own: what it prints is the text, for aside.py",
}
TALKERS = {"click", "tqdm", "rich", "signal", "readline", "curses"}
# who names modules in strings, which no rule here sees: the lazy public names, and the finder of
# the old ones
NAMES_MODULES = {"__init__.py", "old_names.py", "cli/main.py"}

# What opening a model must not load: whatever writes one, and the command line.
WRITERS = {
    f"{PACKAGE}.container.{name}"
    for name in ("writer", "rewrite", "atomic", "copying", "block_copy", "leftovers", "record")
} | {f"{PACKAGE}.model.encoding"}

MOST_LINES = 400
MOST_ENTRIES = 25


@dataclass(frozen=True)
class Arrow:
    """One import: from a file into a module, ours (its name within the package) or another's."""

    file: str
    line: int
    module: str
    ours: bool

    @property
    def room(self) -> str:
        """Where it leads to: a room or a module of ours, or another's top-level package."""
        return self.module.partition(".")[0] or "__init__"

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module or PACKAGE}"


def sources(root: Path) -> Iterator[tuple[str, ast.Module]]:
    """The package's modules: path within it, and what they say."""
    package = root / PACKAGE
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def room_of(file: str) -> str:
    return file.partition("/")[0].removesuffix(".py")


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All of them but those for type checkers alone."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield from (other, *nodes(other))
            continue
        yield child
        yield from nodes(child)


def arrows(root: Path, file: str, tree: ast.Module) -> Iterator[Arrow]:
    """Every import of a module, those inside functions too."""
    here = file.removesuffix(".py").split("/")
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            found = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                base = [PACKAGE, *here[: len(here) - node.level], *base]
            folder = root.joinpath(*".".join(base).split("."))
            found = [
                ".".join([*base, each.name])
                if (folder / f"{each.name}.py").is_file() or (folder / each.name).is_dir()
                else ".".join(base)
                for each in node.names
            ]
        else:
            continue
        for name in dict.fromkeys(found):
            ours = name == PACKAGE or name.startswith(PACKAGE + ".")
            yield Arrow(file, node.lineno, name[len(PACKAGE) + 1 :] if ours else name, ours)


def all_arrows(root: Path) -> list[Arrow]:
    return [arrow for file, tree in sources(root) for arrow in arrows(root, file, tree)]


def arrows_run_down(root: Path) -> list[str]:
    """From a room into one on a lower floor; every room has its floor."""
    found = []
    for file, _ in sources(root):
        if room_of(file) not in FLOOR:
            found.append(f"{file} is in no room that has a floor")
    for arrow in all_arrows(root):
        source, target = room_of(arrow.file), arrow.room
        if not arrow.ours or source == target or source not in FLOOR:
            continue
        if target not in FLOOR or FLOOR[target] >= FLOOR[source]:
            found.append(f"{arrow}, which is not below {source}")
    return found


def no_circles(root: Path) -> list[str]:
    """Among modules, of one room too: what imports must not be imported by what it imports."""
    edges: dict[str, set[str]] = {}
    for file, tree in sources(root):
        name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        edges[name] = {each.module for each in arrows(root, file, tree) if each.ours} - {""}
    found: list[str] = []
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            found.append("a circle: " + " -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for each in sorted(edges.get(name, ())):
                walk(each, (*path, name))
            done.add(name)

    for name in edges:
        walk(name, ())
    return found


def ground_rooms_stand_alone(root: Path) -> list[str]:
    """`method` is NumPy and the standard library; neither it nor `container` needs the others."""
    found = []
    for arrow in all_arrows(root):
        room = room_of(arrow.file)
        if arrow.ours:
            allowed = arrow.room == room or arrow.room in OURS.get(room, {arrow.room})
        else:
            known = OTHERS.get(room, {arrow.room}) | set(sys.stdlib_module_names)
            allowed = arrow.room in known
        if not allowed:
            found.append(f"{arrow}, and {room} may not")
    return found


def only_the_command_line_talks(root: Path) -> list[str]:
    """No print, no standard stream to write to, no progress, no signal handler outside cli/."""
    found = []
    for file, tree in sources(root):
        if room_of(file) == "cli":
            continue
        said = []
        for arrow in arrows(root, file, tree):
            if not arrow.ours and arrow.room in TALKERS:
                said.append(str(arrow))
        for node in nodes(tree):
            name = ast.unparse(node) if isinstance(node, (ast.Attribute, ast.Name)) else ""
            if name in ("print", "input") or name.strip("_").endswith((".stdout", ".stderr")):
                if isinstance(node, ast.Name) or name.startswith("sys."):
                    said.append(f"{file}:{node.lineno} uses {name}")  # type: ignore[attr-defined]
            if isinstance(node, ast.ImportFrom) and node.module == "sys":
                said += [f"{file}:{node.lineno} takes {each.name} of sys" for each in node.names
                         if each.name.strip("_") in ("stdout", "stderr")]
        if file in TALKS:
            if not said:
                found.append(f"{file} is excepted from the rule and keeps it: take it off the list")
            continue
        found += [f"{each}, outside cli/" for each in said]
    return found


def imports_can_be_read(root: Path) -> list[str]:
    """A module named in a string is an arrow that no rule sees."""
    return [
        f"{file}:{node.lineno} imports by a string"
        for file, tree in sources(root)
        if file not in NAMES_MODULES
        for node in nodes(tree)
        if isinstance(node, (ast.Attribute, ast.Name))
        and ast.unparse(node).rpartition(".")[2] in ("import_module", "__import__")
    ]


def opening_loads_no_writer(root: Path) -> list[str]:
    """In a fresh interpreter: `import lampe_gguf.backend.llama` loads what reads, and no more."""
    code = f"import sys, {PACKAGE}.backend.llama as m; print(m.__file__, *sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True, text=True, timeout=120,
    )
    assert done.returncode == 0, done.stderr
    file, *loaded = done.stdout.split("\n")
    assert Path(file).is_relative_to(root)
    wrong = [name for name in loaded if name in WRITERS or name.split(".")[0] == "click"
             or name.startswith(f"{PACKAGE}.cli")]
    return [f"opening a model loads {name}" for name in wrong]


def files_are_short(root: Path) -> list[str]:
    """Every Python file of the repository."""
    found = []
    for top in (PACKAGE, "tools", "tests", "patches"):
        for path in sorted((root / top).rglob("*.py")):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > MOST_LINES:
                found.append(f"{path.relative_to(root)} has {lines} lines, more than {MOST_LINES}")
    return found


def rooms_say_what_they_are_for(root: Path) -> list[str]:
    """Each has an __init__.py, and each of its modules, with a docstring."""
    package = root / PACKAGE
    folders = {path.parent for path in package.rglob("*.py")}
    found = [f"{folder.relative_to(root)} has no __init__.py" for folder in sorted(folders)
             if not (folder / "__init__.py").is_file()]
    return found + [f"{file} has no docstring" for file, tree in sources(root)
                    if not ast.get_docstring(tree)]


def the_listing_is_a_table_of_contents(root: Path) -> list[str]:
    entries = [path.name for path in (root / PACKAGE).iterdir() if path.name != "__pycache__"]
    if len(entries) <= MOST_ENTRIES:
        return []
    return [f"{PACKAGE}/ lists {len(entries)} entries, more than {MOST_ENTRIES}"]


RULES: tuple[Callable[[Path], list[str]], ...] = (
    arrows_run_down, no_circles, ground_rooms_stand_alone, only_the_command_line_talks,
    imports_can_be_read, opening_loads_no_writer, files_are_short, rooms_say_what_they_are_for,
    the_listing_is_a_table_of_contents,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(rule: Callable[[Path], list[str]]) -> None:
    assert rule(ROOT) == []


def add(file: str, text: str) -> Callable[[Path], None]:
    """A change that ends a file of the package, or makes it."""

    def change(root: Path) -> None:
        path = root / PACKAGE / file
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.parent.mkdir(exist_ok=True)
        path.write_text(before + text, encoding="utf-8")

    return change


def entries(root: Path) -> None:
    for number in range(MOST_ENTRIES):
        (root / PACKAGE / f"more_{number}.txt").touch()


def empty(root: Path) -> None:
    (root / PACKAGE / "model" / "__init__.py").write_text("")


LAZY = "\n\ndef late() -> None:\n    "
ELSEWHERE = "\n\nif TYPE_CHECKING:\n    pass\nelse:\n    "
BREAKS = [
    (arrows_run_down, add("conversation/reply.py", "\nfrom ..cli import console\n"), "cli.console"),
    (arrows_run_down, add("backend/api.py", LAZY + "from .. import convert\n"), "imports convert"),
    (arrows_run_down, add("model/presets.py", LAZY + "import lampe_gguf.backend.api\n"),
     "imports backend.api"),
    (arrows_run_down, add("bench/compare.py", "\nfrom ..attention import measure\n"),
     "not below bench"),
    (arrows_run_down, add("evaluate/suite.py", LAZY + "from .. import LampeLlama\n"),
     "imports lampe_gguf"),
    (arrows_run_down, add("evaluate/tasks/kv.py", ELSEWHERE + "from ...attention import reader\n"),
     "imports attention.reader"),
    (arrows_run_down, add("annexe/__init__.py", '"""New."""\n'), "in no room"),
    (no_circles, add("model/presets.py", LAZY + "from . import choose\n"), "a circle: model."),
    (ground_rooms_stand_alone, add("method/positions.py", LAZY + "import gguf\n"), "imports gguf"),
    (ground_rooms_stand_alone, add("method/fields.py", "\nfrom ..shown import shown\n"),
     "imports shown"),
    (ground_rooms_stand_alone, add("container/format.py", "\nfrom ..shown import shown\n"),
     "container may not"),
    (only_the_command_line_talks, add("plot.py", LAZY + "import click\n"), "imports click"),
    (only_the_command_line_talks, add("strip.py", LAZY + "print('done')\n"), "uses print"),
    (only_the_command_line_talks, add("inspect.py", LAZY + "sys.stdout.write('x')\n"),
     "uses sys.stdout"),
    (only_the_command_line_talks, add("model/choose.py", LAZY + "from sys import stderr\n"),
     "takes stderr"),
    (only_the_command_line_talks, add("evaluate/suite.py", "\nimport signal\n"), "imports signal"),
    (only_the_command_line_talks, add("conversation/ask.py", "\nfrom tqdm import tqdm\n"),
     "imports tqdm"),
    (imports_can_be_read, add("convert.py", LAZY + "importlib.import_module('.cli')\n"),
     "by a string"),
    (opening_loads_no_writer, add("backend/cores.py", "\nfrom ..container import writer\n"),
     "container.writer"),
    (opening_loads_no_writer, add("model/choose.py", "\nfrom . import encoding\n"),
     "model.encoding"),
    (opening_loads_no_writer, add("backend/opening.py", "\nimport click\n"), "loads click"),
    (files_are_short, add("errors.py", "\n" * 400), "errors.py has"),
    (files_are_short, add("../tools/long.py", "\n" * 401), "long.py has 401 lines"),
    (rooms_say_what_they_are_for, empty, "no docstring"),
    (rooms_say_what_they_are_for, lambda root: (root / PACKAGE / "cli/__init__.py").unlink(),
     "no __init__.py"),
    (the_listing_is_a_table_of_contents, entries, "more than 25"),
]


def test_every_rule_is_broken_once() -> None:
    assert {rule for rule, _, _ in BREAKS} == set(RULES)


@pytest.mark.parametrize("number", range(len(BREAKS)))
def test_what_breaks_a_rule_is_found(number: int, tmp_path: Path) -> None:
    rule, change, said = BREAKS[number]
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / PACKAGE, tmp_path / PACKAGE, ignore=skipped)
    (tmp_path / "tools").mkdir()
    change(tmp_path)
    found = rule(tmp_path)
    assert len(found) >= 1 and any(said in each for each in found), found


def test_what_type_checkers_alone_see_is_no_arrow(tmp_path: Path) -> None:
    (tmp_path / PACKAGE / "model").mkdir(parents=True)
    (tmp_path / PACKAGE / "model" / "x.py").write_text(
        "if TYPE_CHECKING:\n    from ..cli import main\n")
    assert arrows_run_down(tmp_path) == []
