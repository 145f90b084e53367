#!/usr/bin/env python3
"""Install the wheels as people do, in another Debian release that has no compiler.

    python3 tools/device/elsewhere.py install FOLDER [--release trixie] [--model FILE]
    python3 tools/device/elsewhere.py frozen FOLDER [--release trixie] [--model FILE]
    python3 tools/device/elsewhere.py integrations FOLDER [--model FILE]
    python3 tools/device/elsewhere.py stock FOLDER [--model FILE]

FOLDER is what `backend.py wheel --into FOLDER` made. `install` makes a virtual environment in the
other release, installs lampe-gguf with `pip install --find-links FOLDER`, converts SmolLM2 and asks
about a text beyond its window. `frozen` makes a one-folder app of a program of ten lines with
PyInstaller here, and runs it in a release that has not even Python. `integrations` has LangChain,
LlamaIndex and Haystack run the wheel on a converted model, here. `stock` installs upstream's own
llama-cpp-python over it, as another package's wish may, and says what lampe-gguf does then.

The first two need root, and Debian's debootstrap; the releases are kept in the cache. Each runs in
a root of its own with this machine's /proc, and leaves nothing mounted. `stock` builds upstream's
code, which takes minutes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pydoc_data.topics import topics

from patched import build
from patched.places import CHECKOUT, best_python, cache_dir, venv_python
from patched.report import Failure, guarded, run
from patched.sdist import explain_pip
from patched.smollm2 import smollm2

PYINSTALLER = "pyinstaller>=6.10"
# LlamaIndex asks pkg_resources, which later setuptools lack
INTEGRATIONS = ("langchain-community", "llama-index-llms-llama-cpp", "llama-cpp-haystack",
                "setuptools<81")
BOOK = 62_000  # characters of Python's reference, as README has it: some 15,000 tokens
QUESTION = "In one sentence: what is this text about?"  # README's
INTEGRATIONS_SIDE = CHECKOUT / "tools" / "device" / "integrations_side.py"
# ten lines, as an app would have them
PROGRAM = '''\
import sys
from lampe_gguf import LampeLlama, plain_text
from lampe_gguf.backend.doctor import examine
model, book = sys.argv[1:]
with LampeLlama(model, lampe="auto", n_ctx=0, n_threads=1) as llm:
    question = plain_text(llm, open(book, encoding="utf-8").read()) + "\\n\\nSum it up."
    answer = llm.create_chat_completion([{"role": "user", "content": question}], max_tokens=16)
    print(examine().build, "|", llm.path, "|", llm.plan())
print(answer["choices"][0]["message"]["content"])
'''


def make_root(release: str, packages: str, name: str) -> Path:
    """A small Debian in the cache, made the first time."""
    root = cache_dir() / "roots" / f"{release}-{name}"
    if (root / "made").exists():
        return root
    program = shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise Failure("debootstrap is missing; install it with 'apt-get install debootstrap'.")
    if os.geteuid() != 0:
        raise Failure("a root of another release can be made and entered by root alone.")
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [program, "--variant=minbase"]
    if packages:
        command.append(f"--include={packages}")
    run([*command, release, root], f"Making a Debian {release}")
    (root / "made").touch()
    return root


def inside(root: Path, script: str, label: str, env: dict[str, str] | None = None) -> str:
    """Run a shell script in a root, with nothing of this machine's environment but `env`."""
    plain = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root",
             "LANG": "C.UTF-8", **(env or {})}
    words = " ".join(shlex.quote(f"{name}={value}") for name, value in plain.items())
    # the mount is this process's own and goes with it
    enter = (f"mount -t proc proc {shlex.quote(str(root / 'proc'))} && "
             f"exec chroot {shlex.quote(str(root))} env -i {words} sh -euc {shlex.quote(script)}")
    return run(["unshare", "--mount", "sh", "-euc", enter], label, explain=explain_pip)


def lay_inside(root: Path, folder: Path, model: Path) -> None:
    """Copy wheels, the model and a long text into a root, and what pip needs to reach an index."""
    home = root / "root"
    for name in ("wheels", "v", "app"):
        shutil.rmtree(home / name, ignore_errors=True)
    shutil.copytree(folder, home / "wheels")
    shutil.copyfile(model, home / "model.gguf")
    text = "\n\n".join(topics[name] for name in sorted(topics))[:BOOK]
    (home / "book.txt").write_text(text, encoding="utf-8")
    for path in ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt", "/etc/hosts"):
        if Path(path).is_file():
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copyfile(path, target)


def network() -> dict[str, str]:
    """What of this machine's environment says how pip reaches its index."""
    names = ("http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT")
    found = {name: os.environ[name] for each in names for name in (each, each.upper())
             if name in os.environ}
    return {**found, "PIP_CERT": "/etc/ssl/certs/ca-certificates.crt",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}


NO_COMPILER = ('for name in c++ g++ gcc cc clang cmake ninja; do if command -v $name; then '
               'echo "$name is here"; exit 3; fi; done; ')


def install(options: argparse.Namespace) -> None:
    """README's two commands for a machine without a compiler, and the same of a converted model."""
    root = make_root(options.release, "python3,python3-venv,ca-certificates", "python")
    lay_inside(root, options.folder, options.model)
    print(inside(root, NO_COMPILER + "cd /root; cat /etc/debian_version; ldd --version | head -1; "
                 "python3 -m venv v; v/bin/pip install --quiet --find-links wheels lampe-gguf; "
                 "v/bin/pip list", "Installing in " + options.release, network()))
    print(inside(root, "cd /root; v/bin/lampe-gguf doctor", "doctor in " + options.release))
    print(inside(root, "cd /root; v/bin/lampe-gguf ask model.gguf --doc book.txt "
                 f"'{QUESTION}'", "Asking as the README does"))
    print(inside(root, "cd /root; rm -f model.lampe.gguf; v/bin/lampe-gguf convert model.gguf; "
                 "v/bin/lampe-gguf ask model.lampe.gguf --doc book.txt --max-tokens 32 "
                 f"'{QUESTION}'", "Asking in " + options.release))


def freeze(options: argparse.Namespace) -> None:
    """A one-folder app of PROGRAM, run where there is no Python."""
    place = cache_dir() / "frozen"
    python = venv_python(place / "v")
    if not python.exists():
        shutil.rmtree(place, ignore_errors=True)
        run([best_python(), "-m", "venv", place / "v"], "Making a virtual environment")
    run([python, "-m", "pip", "install", "--quiet", "--upgrade", "--find-links", options.folder,
         "lampe-gguf", PYINSTALLER], "Installing lampe-gguf and PyInstaller", explain=explain_pip)
    program = place / "app.py"
    program.write_text(PROGRAM, encoding="utf-8")
    run([python, "-m", "PyInstaller", "--noconfirm", "--clean", "--distpath", place / "dist",
         "--workpath", place / "work", "--specpath", place, program], "Freezing the app")
    root = make_root(options.release, "", "plain")
    lay_inside(root, options.folder, options.model)
    shutil.copytree(place / "dist" / "app", root / "root" / "app", symlinks=True)
    size = sum(path.stat().st_size for path in (place / "dist" / "app").rglob("*")
               if path.is_file() and not path.is_symlink())
    print(f"the app takes {size / 1e6:.0f} MB")
    print(inside(root, NO_COMPILER + "if command -v python3; then exit 3; fi; cd /root; "
                 "app/app model.gguf book.txt", "Running the app in " + options.release))


def fresh_venv(name: str, folder: Path, *packages: str) -> Path:
    """A virtual environment in the cache with lampe-gguf from the folder; its interpreter."""
    place = cache_dir() / name
    shutil.rmtree(place, ignore_errors=True)
    python = venv_python(place)
    run([best_python(), "-m", "venv", place], "Making a virtual environment")
    run([python, "-m", "pip", "install", "--quiet", "--find-links", folder, "lampe-gguf",
         *packages], "Installing lampe-gguf", explain=explain_pip)
    return python


def integrate(options: argparse.Namespace) -> None:
    """LangChain, LlamaIndex and Haystack, which load the model with their own classes."""
    python = fresh_venv("integrations", options.folder, *INTEGRATIONS)
    converted = cache_dir() / "integrations" / "model.lampe.gguf"
    run([python, "-m", "lampe_gguf.cli", "convert", options.model, converted],
        "Converting the model")
    print(run([python, INTEGRATIONS_SIDE, converted], "Trying them"))


def with_stock(options: argparse.Namespace) -> None:
    """Upstream's own build, which another package's wish has put over ours."""
    python = fresh_venv("beside-stock", options.folder)
    stock, _ = build.build_wheel(build.Variant(stock=True))
    print(run([python, "-m", "pip", "install", "--force-reinstall", "--no-deps", "--no-index",
               stock], "Installing stock over it").splitlines()[-1])
    for arguments in (["doctor"], ["ask", str(options.model), "Who are you?"]):
        command = [str(python), "-m", "lampe_gguf.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        print(f"lampe-gguf {arguments[0]}: exit code {done.returncode}\n"
              f"{done.stdout}{done.stderr}")
        if done.returncode != 1:
            raise Failure("lampe-gguf did not refuse the other build.")


WAYS = {"install": install, "frozen": freeze, "integrations": integrate, "stock": with_stock}


def main() -> int:
    """Run what was asked for; returns 0 where it did what people expect."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(WAYS))
    parser.add_argument("folder", type=Path, help="the folder of wheels, with its page")
    parser.add_argument("--release", default="trixie", help="of Debian (default: trixie)")
    parser.add_argument("--model", type=Path, help="another model (default: SmolLM2)")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    if not (options.folder / "index.html").is_file():
        raise Failure(f"{options.folder} has no page; make it with 'backend.py wheel --into'.")
    options.model = options.model or smollm2()
    WAYS[options.what](options)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
