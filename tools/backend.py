#!/usr/bin/env python3
"""The patched llama-cpp-python: build it, check its patches, refresh them, rebuild in seconds."""

# argparse here, in bootstrap.py, in device/ where it builds, and in patched/: they are run by any
# python3, before there is anything installed. What runs in .venv parses with click (arguments.py).

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from patched import build, folder, parts, portable, sdist, series, trial, zig
from patched.devices import DEVICES
from patched.places import PATCHES, patched_version
from patched.refresh import refresh
from patched.report import Failure, guarded


def _build(options: argparse.Namespace) -> int:
    if options.with_server and not options.stock:
        raise Failure("--with-server is for --stock; the patched build has llama-server unless "
                      "--no-server is given.")
    parts.remember(options)
    if options.stock:
        wanted = parts.Parts() if options.with_server else parts.NOTHING
        print(build.stock_folder(options.device, discard=options.discard, wanted=wanted))
        return 0
    changed = build.install_patched(options.device, discard=options.discard)
    print(f"llama-cpp-python {patched_version()} {'installed' if changed else 'is up to date'}")
    return 0


def _check(options: argparse.Namespace) -> int:
    source = sdist.fetch()
    wrong = series.problems(source, PATCHES)
    for problem in wrong:
        print(f"error: {problem}", file=sys.stderr)
    if not wrong:
        patches, files = series.read_series(PATCHES), series.overlay_files(PATCHES)
        print(f"{len(patches)} patches apply with no fuzz; {len(files)} overlay files are new")
    return 1 if wrong else 0


def _try(options: argparse.Namespace) -> int:
    source = trial.find_source(options.release)
    print(f"{source.path.name}, SHA-256 {sdist.sha256(source.path)}")
    results, taken = trial.try_series(source, PATCHES)
    print(*results, sep="\n")
    for path in taken:
        print(f"overlay/{path}: upstream has this file now")
    failed = sum(1 for each in results if each.failed)
    moved = sum(1 for each in results if each.shift and not each.failed)
    print(f"{len(results) - failed - moved} of {len(results)} patches apply, {moved} with offset, "
          f"{failed} fail; upstream has {len(taken)} of {len(series.overlay_files(PATCHES))} "
          "overlay files")
    return 1 if failed or taken else 0


def _refresh(options: argparse.Namespace) -> int:
    root = Path(options.tree) if options.tree else build.edited_tree(options.device)
    if not (root / "llama_cpp" / "__init__.py").exists():
        raise Failure(f"{root} is no source tree of llama-cpp-python.")
    source = sdist.fetch()
    done = refresh(
        source, PATCHES, root, new=tuple(options.new) if options.new else None, into=options.into
    )
    for name in done.written:
        print(f"wrote patches/{name}")
    for name in done.removed:
        print(f"removed patches/{name}")
    if not done.written and not done.removed:
        print("patches/ already says what the tree holds")
    wrong = series.problems(source, PATCHES)
    for problem in wrong:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if wrong else 0


def _rebuild(options: argparse.Namespace) -> int:
    started = time.monotonic()
    changed = build.rebuild(options.device)
    seconds = time.monotonic() - started
    print(f"{', '.join(changed) if changed else 'nothing'} replaced in {seconds:.1f} s")
    return 0


def _wheel(options: argparse.Namespace) -> int:
    parts.remember(options)
    made = portable.make(options.machine, discard=options.discard)
    print(f"{made}, {made.stat().st_size / 1e6:.1f} MB")
    if options.into:
        page = folder.publish(Path(options.into), made)
        print(f"{page}: pip install --find-links {page.parent} lampe-gguf")
    return 0


def _where(options: argparse.Namespace) -> int:
    if options.stock:
        print(build.stock_folder(options.device))
    else:
        print(build.tree_source(options.device))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="backend.py", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, what: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=what, description=what)
        added.set_defaults(run=globals()[f"_{name}"], device="cpu", stock=False)
        if name not in ("check", "try", "wheel"):
            group = added.add_mutually_exclusive_group()
            for device in DEVICES:
                group.add_argument(
                    f"--{device}", dest="device", action="store_const", const=device,
                    help=f"the build for {device} instead of the CPU",
                )
        return added

    made = command("build", "Fetch, patch, compile and install into .venv what patches/ says.")
    made.add_argument("--stock", action="store_true",
                      help="build upstream's own code instead and print its folder")
    made.add_argument("--with-server", action="store_true",
                      help="with --stock: llama-server too")
    made.add_argument("--discard", action="store_true",
                      help="drop edits made in the tree, and pack the wheel anew")
    parts.add_options(made)
    command("check", "Check that every patch applies to the pristine source with no fuzz.")
    other = command("try", "Say which hunks of the series fail on another release of upstream.")
    other.add_argument("release", metavar="VERSION|SDIST",
                       help="which pip then downloads, or the path of its source (.tar.gz)")
    back = command("refresh", "Write the edits of a source tree back into patches/.")
    back.add_argument("--tree", metavar="DIR", help="an edited tree elsewhere")
    back.add_argument("--new", nargs=2, metavar=("NAME", "WHY"),
                      help="a new patch for upstream files that no patch holds yet")
    back.add_argument("--into", metavar="PATCH", help="an existing patch for those files")
    command("rebuild", "Compile patches/ and the edits in the tree; copy what changed into .venv.")
    wheel = command("wheel", "Make the wheel that runs on every processor of a kind, and needs no "
                    "compiler where it is installed.")
    wheel.add_argument("--machine", choices=tuple(zig.TARGETS), default="x86_64",
                       help="the kind of processor (default: x86_64)")
    wheel.add_argument("--into", metavar="DIR",
                       help="a folder for it, for a wheel of lampe-gguf and for a page that pip "
                            "takes as --find-links")
    wheel.add_argument("--discard", action="store_true",
                       help="drop edits made in the tree, and pack the wheel anew")
    parts.add_options(wheel)
    place = command("where", "Print the folder of the source tree to edit.")
    place.add_argument("--stock", action="store_true",
                       help="the folder of the stock build, for PYTHONPATH")
    return parser


def main() -> int:
    """Run one command; returns its exit code."""
    options = _parser().parse_args()
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(guarded(main))
