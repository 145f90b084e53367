"""From patches/ to an installed backend: each step only where its inputs changed."""

from __future__ import annotations

import hashlib
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from . import compile as compiling
from . import page as pages
from . import parts
from . import sdist as sources
from . import wheel as wheels
from .devices import describe
from .places import (
    PATCHES,
    SDIST_SHA256,
    STOCK_VERSION,
    cache_dir,
    patched_version,
    venv_python,
)
from .report import Failure
from .series import overlay_files, patched_files, read_series
from .tree import VERSION_FILE, Tree, locked_tree, with_version

_KEPT_WHEELS = 4


@dataclass(frozen=True)
class Variant:
    """One of the builds: for which device, and whether it is upstream's own code (with the
    patches that mend it, or it would crash on some machines); whether llama-server comes along;
    and for which machine, where it runs on all processors of that kind ("x86_64")."""

    device: str = "cpu"
    stock: bool = False
    wanted: parts.Parts = parts.NOTHING
    portable: str = ""

    @property
    def name(self) -> str:
        if self.portable:
            return f"portable-{self.portable}"
        return f"{'stock' if self.stock else 'lampe'}-{self.device}"

    @property
    def version(self) -> str:
        return STOCK_VERSION if self.stock else patched_version()

    @property
    def label(self) -> str:
        kind = "stock" if self.stock else "patched"
        return f"{kind} llama.cpp" + ("" if self.device == "cpu" else f" with {self.device}")


def page_of(variant: Variant) -> pages.Page:
    """The page of the server, or why it has none."""
    if not variant.wanted.server:
        return pages.Page(None)
    if not variant.wanted.page:
        return pages.Page(None, "it was left out")
    return pages.make_page(sources.fetch())


def input_key(variant: Variant, tools: compiling.Toolchain, page: str = "") -> str:
    """A hash of all that decides what the wheel holds: 16 hexadecimal digits.

    page  the key of the server's page, '' where it has none
    """
    digest = hashlib.sha256()
    inputs: dict[str, bytes] = {} if variant.stock else overlay_files(PATCHES)
    for patch in read_series(PATCHES):
        if patch.is_fix or not variant.stock:
            inputs[patch.name] = (PATCHES / patch.name).read_bytes()
    # A wheel made by other tools is another wheel.
    for path in (Path(__file__), Path(compiling.__file__), Path(wheels.__file__)):
        inputs[f"tools/{path.name}"] = path.read_bytes()
    inputs["build"] = "\0".join(
        [SDIST_SHA256, variant.version, wheels.platform_tag(),
         compiling.fingerprint(tools, variant.device), repr(variant.wanted.server), page]
    ).encode()
    for name, data in sorted(inputs.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:16]


def _wheel_in(folder: Path) -> Path | None:
    return next(iter(folder.glob("*.whl")), None)


def _prune(folder: Path) -> None:
    for old in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)[:-_KEPT_WHEELS]:
        shutil.rmtree(old, ignore_errors=True)


def lay_tree(tree: Tree, variant: Variant, *, discard: bool = False, keep: bool = False) -> None:
    """Bring a tree to the pinned source with patches/ laid onto it, as Tree.lay says."""
    source = sources.fetch()
    tree.open(source)
    wanted = patched_files(source, PATCHES, fixes_only=variant.stock)
    own = wanted.get(VERSION_FILE) or source.read([VERSION_FILE])[VERSION_FILE]
    wanted[VERSION_FILE] = with_version(own, variant.version)
    tree.lay(source, wanted, discard=discard, keep=keep)


def toolchain(variant: Variant) -> compiling.Toolchain:
    """The programs of a build; upstream's own is compiled with what upstream chooses."""
    tools = compiling.find_toolchain(variant.device)
    return replace(tools, flags=(*tools.flags, "-DGGML_OPENMP=ON")) if variant.stock else tools


def build_wheel(variant: Variant, *, discard: bool = False) -> tuple[Path, str]:
    """The wheel of a variant and its key, from the cache where nothing changed."""
    tools = toolchain(variant)
    page = page_of(variant)
    key, version = input_key(variant, tools, page.key), variant.version
    home = cache_dir() / "wheels" / variant.name
    cached = _wheel_in(home / key)
    if cached and not discard:
        return cached, key
    if not variant.stock:
        print("\n".join(describe(variant.device)), file=sys.stderr, flush=True)
    server = variant.wanted.server
    if page.why_not:
        print(f"llama-server without its page: {page.why_not}", file=sys.stderr, flush=True)
    with locked_tree(variant.name) as tree:
        lay_tree(tree, variant, discard=discard)
        pages.lay(page, tree)
        compiling.compile_tree(tree, tools, variant.device, variant.label, server=server)
        made = wheels.pack(tree, version, key, home / key, server=server,
                           no_page=page.why_not)
    _prune(home)
    return made, key


def install_patched(device: str = "cpu", *, discard: bool = False) -> bool:
    """Have the patched build in .venv; returns False where it was there already.

    What comes with it besides the library, `parts.chosen()` says.
    """
    variant = Variant(device, wanted=parts.chosen())
    python = venv_python()
    if not python.exists():
        raise Failure("there is no .venv yet; run 'python3 tools/bootstrap.py setup'.")
    wheel, key = build_wheel(variant, discard=discard)
    if wheels.installed_key(wheels.site_packages(python), variant.version) == key:
        return False
    wheels.install(python, wheel)
    return True


def stock_folder(
    device: str = "cpu", *, discard: bool = False, wanted: parts.Parts = parts.NOTHING
) -> Path:
    """A folder for PYTHONPATH that holds the stock build, made where it is missing.

    It leaves .venv alone: with it on the path, `import llama_cpp` gives upstream's own code
    built with the same flags.
    """
    wheel, key = build_wheel(Variant(device, True, wanted), discard=discard)
    folder = cache_dir() / "stock" / device / key
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        wheels.unpack(wheel, folder)
        _prune(folder.parent)
    return folder


def rebuild(device: str = "cpu", *, python: Path | None = None) -> list[str]:
    """Compile patches/ and the edits in the tree, and copy what changed into .venv."""
    variant = Variant(device, wanted=parts.chosen())
    tools = toolchain(variant)
    server = variant.wanted.server
    page = page_of(variant)
    with locked_tree(variant.name) as tree:
        lay_tree(tree, variant, keep=True)
        pages.lay(page, tree)
        compiling.compile_tree(tree, tools, device, variant.label, server=server)
        site = wheels.site_packages(python or venv_python())
        return wheels.copy_over(tree, site, variant.version, server=server)


def edited_tree(device: str = "cpu") -> Path:
    """The patched source tree with its edits, brought up to date with patches/ elsewhere."""
    variant = Variant(device)
    with locked_tree(variant.name) as tree:
        lay_tree(tree, variant, keep=True)
        return tree.src


def tree_source(device: str = "cpu") -> Path:
    """Where the patched source tree lies, to be edited."""
    return cache_dir() / "trees" / Variant(device).name / "src"


