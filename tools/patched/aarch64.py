"""A Python for 64-bit ARM with what tests of libraries need that are built for it, run by QEMU.

Debian's packages and PyPI's wheels are unpacked into a folder in the cache. Nothing is installed:
apt keeps lists and downloads there too, and no program of the system changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .places import CHECKOUT, best_python, cache_dir
from .report import Failure, Status, run

COMPILERS = ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++")
EMULATORS = ("qemu-aarch64", "qemu-aarch64-static")
# NumPy's wheels and our libraries need libstdc++; apt finds what these two need
DEBIAN = ("python3", "libstdc++6")
PYPI = ("numpy", "gguf>=0.19", "click>=8.1", "pytest>=8")
# pip takes a name for what it says and no more: no wheel for an older system unless that is named
WHEELS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64",
          "manylinux2014_aarch64")


def missing_programs() -> str:
    """One sentence on what to install before ARM libraries can be built and run; '' if nothing."""
    for name in ("apt-get", "dpkg-deb"):
        if not shutil.which(name):
            return f"there is no {name}; a Python for ARM is made of Debian's packages."
    packages = []
    if not all(shutil.which(name) for name in COMPILERS):
        packages.append("g++-aarch64-linux-gnu")
    if not emulator():
        packages.append("qemu-user")
    if not packages:
        return ""
    verb = "is" if len(packages) == 1 else "are"
    return (f"{' and '.join(packages)} {verb} missing; install with "
            f"'apt-get install {' '.join(packages)}'.")


def emulator() -> str | None:
    """QEMU's program for 64-bit ARM."""
    return next((found for name in EMULATORS if (found := shutil.which(name))), None)


@dataclass(frozen=True)
class Python:
    """An interpreter and the environment that it wants."""

    command: list[str]
    env: dict[str, str]


def emulated_python() -> Python:
    """The Python for ARM, which is fetched the first time."""
    folder = cache_dir() / "aarch64"
    stamp = folder / "made-of"
    wanted = "\n".join((*DEBIAN, *PYPI))
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        _unpack_debian(folder)
        _unpack_pypi(folder)
        stamp.write_text(wanted, encoding="utf-8")
    root = folder / "root"
    qemu = emulator()
    assert qemu
    env = {
        # chosen for the processor of this machine
        **{name: value for name, value in os.environ.items() if name[:9] != "OPENBLAS_"},
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (folder / "packages", CHECKOUT))),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    # -S: what QEMU does not find below its root it takes from this machine, where packages are
    # for another processor
    return Python([qemu, "-L", str(root), str(root / "usr" / "bin" / "python3"), "-S"], env)


def _unpack_debian(folder: Path) -> None:
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    empty = folder / "status"  # of a system on which nothing is installed
    empty.touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",  # the cache need not be open to apt's own user
        "Acquire::Languages": "none",
        "Dir::State": str(folder),
        "Dir::State::lists": str(folder / "lists"),
        "Dir::State::status": str(empty),
        "Dir::Cache": str(folder),
        "Dir::Cache::archives": str(folder / "archives"),
    }
    apt = ["apt-get", *(part for name, value in settings.items()
                        for part in ("-o", f"{name}={value}"))]
    run([*apt, "update"], "Reading Debian's lists for ARM")
    run([*apt, "install", "--yes", "--no-install-recommends", "--download-only", *DEBIAN],
        "Fetching Python for ARM")
    root = folder / "root"
    root.mkdir()
    archives = sorted((folder / "archives").glob("*.deb"))
    with Status("Unpacking Python for ARM") as status:
        status.total = len(archives)
        for archive in archives:
            status.detail = archive.name.split("_")[0]
            if subprocess.run(["dpkg-deb", "-x", archive, root]).returncode:
                raise Failure(f"{archive} cannot be unpacked.")
            status.done += 1
    if not (root / "lib").exists():  # newer releases have all below usr
        (root / "lib").symlink_to("usr/lib")
    for name in ("lists", "archives"):
        shutil.rmtree(folder / name)


def _unpack_pypi(folder: Path) -> None:
    python = folder / "root" / "usr" / "bin" / "python3"
    if not python.is_symlink():
        raise Failure(f"{python} does not tell its version.")
    version = os.readlink(python).removeprefix("python")
    command: list[str | Path] = [best_python(), "-m", "pip", "install", "--quiet"]
    command += ["--target", folder / "packages", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", version]
    command += [part for name in WHEELS for part in ("--platform", name)]
    run([*command, *PYPI], "Fetching NumPy, gguf, click and pytest for ARM")
