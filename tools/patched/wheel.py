"""Pack a compiled tree as a wheel, install it, and copy libraries over an installed one."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import subprocess
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

from .compile import SERVER_PROGRAMS
from .places import UPSTREAM
from .report import Failure, run
from .tree import Tree, write_if_changed

RECORD_NAME = "lampe-build.json"
_LIBRARY_ENDINGS = (".so", ".dylib", ".dll")
# what the server needs besides the libraries, which Python's package does without
_SERVER_LIBRARIES = ("llama-common", "mtmd", *(f"{name}-impl" for name in SERVER_PROGRAMS))
_LICENCES = {"LICENSE.md": "LICENSE.md", "vendor/llama.cpp/LICENSE": "LICENSE-llama.cpp"}


def package_files(tree: Tree, *, server: bool) -> dict[str, Path]:
    """What is installed: the Python package, the libraries, and llama-server beside them.

    By path in site-packages. Beside: there ggml looks for devices that are libraries of their own.
    """
    package = tree.src / "llama_cpp"
    files = {
        "llama_cpp/" + path.relative_to(package).as_posix(): path
        for path in sorted(package.rglob("*"))
        if path.is_file() and path.suffix in (".py", ".typed")
    }
    built = sorted((tree.build / "bin").iterdir())
    libraries = [path for path in built if path.name.endswith(_LIBRARY_ENDINGS)]
    if not any("llama" in path.name for path in libraries):
        raise Failure(f"{tree.build / 'bin'} holds no llama library; build again with --discard.")
    if server:
        libraries += [path for path in built if is_program(path.name)]
    else:  # the tree may have them from another build
        libraries = [path for path in libraries
                     if path.stem.removeprefix("lib") not in _SERVER_LIBRARIES]
    return {**files, **{f"llama_cpp/lib/{path.name}": path for path in libraries}}


def is_program(name: str) -> bool:
    """Whether a file of the package is started, not loaded."""
    return name.rpartition("/")[2].removesuffix(".exe") in SERVER_PROGRAMS


def _metadata(tree: Tree, version: str) -> bytes:
    head, _, rest = (tree.src / "PKG-INFO").read_text(encoding="utf-8").partition("\nVersion: ")
    return f"{head}\nVersion: {version}\n{rest.partition(chr(10))[2]}".encode()


@dataclass(frozen=True)
class Portable:
    """What a wheel for many processors says of itself: the platform part of its name, the
    variants of the CPU backend in it, the compiler."""

    platform: str
    variants: tuple[str, ...]
    compiler: str


def platform_tag() -> str:
    """The platform part of the wheel's name; the code runs on this machine's processor only."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def pack(
    tree: Tree, version: str, key: str, folder: Path, *, server: bool = False, no_page: str = "",
    portable: Portable | None = None,
) -> Path:
    """Write the wheel of a compiled tree into `folder` and return its path.

    `key`, the hash of everything it was made from, goes into lampe-build.json; so does `no_page`,
    why the server has none ('' where it has one), and which variants a portable wheel has.
    """
    info = f"{UPSTREAM}-{version}.dist-info"
    tag = f"py3-none-{portable.platform if portable else platform_tag()}"
    files = package_files(tree, server=server)
    contents = {name: path.read_bytes() for name, path in files.items()}
    contents[f"{info}/METADATA"] = _metadata(tree, version)
    contents[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: lampe-gguf\nRoot-Is-Purelib: false\nTag: {tag}\n"
    ).encode()
    made: dict[str, object] = {
        "key": key, "version": version, "server": server, "no_page": no_page}
    if portable:
        made["variants"] = list(portable.variants)
        made["compiler"] = portable.compiler
    contents[f"{info}/{RECORD_NAME}"] = json.dumps(made).encode()
    for source, name in _LICENCES.items():
        contents[f"{info}/licenses/{name}"] = (tree.src / source).read_bytes()
    rows = []
    for name, data in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}")
    record = "\n".join([*rows, f"{info}/RECORD,,", ""])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{UPSTREAM}-{version}-{tag}.whl"
    beside = path.with_suffix(".partial")
    with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as wheel:
        for name, data in {**contents, f"{info}/RECORD": record.encode()}.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            runs = name.endswith(_LIBRARY_ENDINGS) or is_program(name)
            # pip asks whether it is a plain file before it lets anyone run it
            entry.external_attr = (stat.S_IFREG | (0o755 if runs else 0o644)) << 16
            wheel.writestr(entry, data)
    os.replace(beside, path)
    return path


def unpack(wheel: Path, folder: Path) -> None:
    """Lay a wheel's files into `folder`, so that PYTHONPATH can name it."""
    scratch = folder.with_name(folder.name + ".partial")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch)
        for name in filter(is_program, archive.namelist()):
            (scratch / name).chmod(0o755)
    os.replace(scratch, folder)


def site_packages(python: Path) -> Path:
    """The folder that holds the packages of an interpreter."""
    command = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def _record_path(site: Path, version: str) -> Path:
    return site / f"{UPSTREAM}-{version}.dist-info" / RECORD_NAME


def installed_key(site: Path, version: str) -> str | None:
    """The key of the build that is installed there, or None."""
    try:
        return str(json.loads(_record_path(site, version).read_text(encoding="utf-8"))["key"])
    except (FileNotFoundError, KeyError, ValueError):
        return None


def install(python: Path, wheel: Path) -> None:
    """Install a wheel, without its dependencies, over whatever build is there."""
    options = ["-m", "pip", "install", "--no-deps", "--no-index", "--force-reinstall"]
    run([python, *options, wheel], f"Installing {wheel.name.split('-py3')[0]}")


def copy_over(tree: Tree, site: Path, version: str, *, server: bool = False) -> list[str]:
    """Replace what differs from the tree in an installed build; returns the names replaced.

    Each file is replaced by renaming, so a process that has the old one loaded goes on.
    """
    record = _record_path(site, version)
    if not record.exists():
        raise Failure(f"{version} is not installed in {site}; run 'backend.py build' once.")
    changed = [
        name
        for name, path in package_files(tree, server=server).items()
        if write_if_changed(site / name, path.read_bytes())
    ]
    for name in filter(is_program, changed):
        (site / name).chmod(0o755)
    if changed:
        # No longer the build that patches/ names: the next 'build' installs that again.
        kept = json.loads(record.read_text(encoding="utf-8"))
        write_if_changed(record, json.dumps({**kept, "key": "edited"}).encode())
    return changed
