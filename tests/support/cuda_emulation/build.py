"""Compile the CUDA source of the operator for the processor, with the headers of this folder.

CUDA's own syntax is rewritten first: launches and declarations of shared memory become calls of
device.h. All else is C++ that g++ or clang++ takes as it is.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import llama_cpp
from patched import compile as compiling
from patched import places, sdist

HERE = Path(__file__).parent
GGML = "vendor/llama.cpp/ggml"
OVERLAY = places.PATCHES / "overlay" / GGML
HEADERS = (OVERLAY / "include", OVERLAY / "src")
KERNELS = OVERLAY / "src" / "ggml-cuda"
SELFTEST = HERE / "selftest.cu"
KEPT = 6  # builds in the cache

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][\w:]*$")
_TYPE = r"(?P<type>(?:[\w:\s]|<[\w:<>,\s]*>)+?)"
_ALIGN = r"(?:(?:__align__|alignas)\((?P<align>\d+)\)\s*)?"
_DYNAMIC = re.compile(
    rf"extern\s+__shared__\s+{_ALIGN}{_TYPE}\s+(?P<name>\w+)\s*\[\s*\]\s*;"
)
_STATIC = re.compile(
    rf"__shared__\s+{_ALIGN}{_TYPE}\s+(?P<name>\w+)\s*"
    r"(?P<size>(?:\[[^\[\];]*\]\s*)*);"
)


def _blank(text: str) -> str:
    """The text with comments and literals blanked out, as long as before."""
    return _COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def _close(code: str, at: int) -> int:
    """Where the bracket closes that opens at `at`."""
    depth = 0
    for i in range(at, len(code)):
        depth += (code[i] in "([{") - (code[i] in ")]}")
        if depth == 0:
            return i
    raise ValueError(f"a bracket does not close: {code[at:at + 60]!r}")


def _open_angle(code: str, end: int) -> int:
    """Where the template arguments begin whose '>' is the last character before `end`."""
    depth = angles = 0
    for i in range(end - 1, -1, -1):
        depth += (code[i] in ")]}") - (code[i] in "([{")
        angles += ((code[i] == ">") - (code[i] == "<")) if depth == 0 else 0
        if angles == 0:
            return i
    raise ValueError(f"template arguments do not open: {code[max(0, end - 60):end]!r}")


def _rewrite_launches(text: str) -> str:
    """k<...><<<grid, block>>>(args) becomes make_launch("k", &k<...>, grid, block)(args)."""
    while True:
        code = _blank(text)
        at = code.find("<<<")
        if at < 0:
            return text
        end = at + 3
        while not code.startswith(">>>", end):
            end = _close(code, end) + 1 if code[end] in "([{" else end + 1
        begin = len(code[:at].rstrip())
        begin = _open_angle(code, begin) if code[begin - 1] == ">" else begin
        found = _NAME.search(code[:begin].rstrip())
        if found is None:
            raise ValueError(f"a launch of no kernel: {code[max(0, at - 60):at]!r}")
        kernel = text[found.start():at]
        text = (
            f'{text[:found.start()]}::cuda_emulation::make_launch("{found[0]}", &{kernel}, '
            f"{text[at + 3:end]}){text[end + 3:]}"
        )


def _rewrite_shared(text: str, ids: Iterator[int]) -> str:
    def dynamic(found: re.Match[str]) -> str:
        kind, name = found["type"], found["name"]
        return f"{kind} * {name} = ::cuda_emulation::shared_array<{kind}>();"

    def static(found: re.Match[str]) -> str:
        kind, name, size, align = (found[each] for each in ("type", "name", "size", "align"))
        given = f", {align}" if align else ""
        return (
            f"typedef {kind} cuda_emulation_{name}{size}; auto & {name} = "
            f"::cuda_emulation::shared_variable<cuda_emulation_{name}>({next(ids)}{given});"
        )

    for pattern, replace in ((_DYNAMIC, dynamic), (_STATIC, static)):
        parts, last = [], 0
        for found in pattern.finditer(_blank(text)):
            lines = found[0].count("\n")
            parts += [text[last:found.start()], replace(found), "\n" * lines]
            last = found.end()
        text = "".join([*parts, text[last:]])
    if "__shared__" in _blank(text):
        raise ValueError("a declaration of shared memory that is not understood")
    return text


def rewrite(text: str, name: str, ids: Iterator[int]) -> str:
    """C++ for a file of CUDA, line by line."""
    return f'#line 1 "{name}"\n' + _rewrite_shared(_rewrite_launches(text), ids)


def _flags(sanitize: bool) -> list[str]:
    flags = ["-std=c++17", "-fPIC", "-g1", "-fno-strict-aliasing", "-ffp-contract=off"]
    flags += ["-Wall", "-Wno-unknown-pragmas", "-Wno-unused-function"]
    if sanitize:
        flags += ["-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"]
        flags += ["-fno-sanitize-recover=all"]
    else:
        flags += ["-O2"]
        flags += ["-march=native"] if platform.machine() == "x86_64" else []
    return flags


def _compile(folder: Path, compiler: Path, flags: list[str], units: list[Path]) -> None:
    libraries = Path(llama_cpp.__file__).parent / "lib"

    def run(*arguments: str | Path) -> None:
        done = subprocess.run([compiler, *flags, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"the emulation does not compile:\n{done.stderr[-8000:]}")

    includes = [f"-I{each}" for each in (HERE, *HEADERS, folder / "ggml")]
    objects = [folder / f"{unit.stem}.o" for unit in units]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        started = [
            pool.submit(run, *includes, f"-I{folder}", "-x", "c++", "-c", unit, "-o", target)
            for unit, target in zip(units, objects, strict=True)
        ]
        for each in started:
            each.result()
    run("-shared", *objects, "-o", folder / "emulated.so", f"-L{libraries}", "-lggml-base",
        f"-Wl,-rpath,{libraries}")


def _key(flags: list[str], version: str, sources: list[Path]) -> str:
    digest = hashlib.sha256()
    for part in (*flags, version, compiling.processor(), places.SDIST_SHA256, llama_cpp.__file__):
        digest.update(part.encode() + b"\0")
    own = [each for each in HERE.iterdir() if each.suffix in (".h", ".cuh", ".cpp", ".py")]
    shared = [path for each in HEADERS for path in sorted(each.glob("*.h"))]
    for path in [*sorted(own), *shared, *sources]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def build_from(sources: list[Path], sanitize: bool = False, entry: bool = False) -> Path:
    """A library of these files of CUDA; the headers among them are for #include.

    `entry` adds the operator's functions of entry.cpp. A library that was built from the same
    files before is taken from the cache.
    """
    compiler, version = compiling.find_compiler()
    flags = _flags(sanitize)
    home = places.cache_dir() / "cuda-emulation"
    kept = home / _key([*flags, str(entry)], version, sources)
    library = kept / "emulated.so"
    if library.exists():
        os.utime(kept)
        return library

    home.mkdir(parents=True, exist_ok=True)
    source = sdist.fetch()
    headers = [name for name in source.names()
               if name.startswith((f"{GGML}/include/", f"{GGML}/src/")) and name.endswith(".h")
               and name.count("/") == 4]
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        folder = Path(scratch) / "build"
        (folder / "ggml").mkdir(parents=True)
        for name, data in source.read(headers).items():
            (folder / "ggml" / Path(name).name).write_bytes(data)
        ids = count()
        for path in sources:
            text = rewrite(path.read_text(encoding="utf-8"), path.name, ids)
            (folder / path.name).write_text(text, encoding="utf-8")
        units = [folder / path.name for path in sources if path.suffix == ".cu"]
        units += [HERE / f"{name}.cpp" for name in ("runtime", "fibers", "memory", "tensor")]
        units += [HERE / "entry.cpp"] if entry else []
        _compile(folder, compiler, flags, units)
        try:
            folder.rename(kept)
        except OSError:  # another process was faster
            if not library.exists():
                raise
    builds = sorted((path for path in home.iterdir() if (path / "emulated.so").exists()),
                    key=lambda path: path.stat().st_mtime)
    for old in builds[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return library


def build(sanitize: bool = False) -> Path:
    """The library of the operator, with lampe_emulated_supports and lampe_emulated_compute."""
    # what is in the device's assembly has a counterpart here
    sources = [path for path in sorted(KERNELS.glob("lampe-attn*.cu*"))
               if not (HERE / path.name).exists()]
    return build_from(sources, sanitize, entry=True)


def environment(sanitize: bool = False) -> dict[str, str]:
    """What a Python has to be started with to load such a library."""
    env = dict(os.environ)
    if sanitize:
        compiler, _ = compiling.find_compiler()
        runtime = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True,
                                 text=True, check=True).stdout.strip()
        if not Path(runtime).is_absolute():
            raise RuntimeError(f"{compiler.name} has no AddressSanitizer")
        env["LD_PRELOAD"] = runtime
        env["ASAN_OPTIONS"] = "detect_leaks=0"
    return env
