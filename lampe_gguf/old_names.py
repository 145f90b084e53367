"""Module names of earlier releases, which still work for one release and say the new ones.

Loaded when a module of the package is not found: __init__ has a finder that comes last.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# old -> new, both within the package. Names that are another module's or a package's now
# (attention, backend, bench, cli, evaluate, model) are not here: they cannot be both.
OLD_NAMES = {
    "architectures": "model.architectures",
    "aside": "backend.worker",
    "atomic": "container.atomic",
    "attention_passkey": "attention.passkey",
    "attention_plot": "attention.plot",
    "attention_probe": "attention.probe",
    "attention_reader": "attention.reader",
    "attention_state": "attention.state",
    "attention_stats": "attention.stats",
    "bench_side": "bench.side",
    "block_copy": "container.block_copy",
    "calls": "backend.calls",
    "chat": "conversation.chat",
    "checkpoint": "huggingface.checkpoint",
    "commands": "cli",
    "commands.ask": "cli.ask",
    "commands.attention": "cli.attention",
    "commands.bench": "cli.bench",
    "commands.calibrate": "cli.calibrate",
    "commands.chat": "cli.chat",
    "commands.convert": "cli.convert",
    "commands.doctor": "cli.doctor",
    "commands.eval": "cli.eval",
    "commands.eval_tasks": "cli.eval_tasks",
    "commands.inspect": "cli.inspect",
    "commands.options": "cli.options",
    "commands.stopping": "cli.stopping",
    "commands.strip": "cli.strip",
    "commands.task_options": "cli.task_options",
    "commands.writing": "cli.writing",
    "config": "method.config",
    "console": "cli.console",
    "copying": "container.copying",
    "cores": "backend.cores",
    "doctor": "backend.doctor",
    "documents": "conversation.documents",
    "fields": "method.fields",
    "gguf_file": "container.reader",
    "gguf_format": "container.format",
    "gguf_output": "container.writer",
    "hf": "huggingface.attention",
    "inspection": "inspect",
    "leftovers": "container.leftovers",
    "length": "conversation.length",
    "metadata": "model.metadata",
    "native_path": "backend.native_path",
    "opening": "backend.opening",
    "paths": "container.paths",
    "positions": "method.positions",
    "presets": "model.presets",
    "progress": "cli.progress",
    "quantize_side": "huggingface.quantize_side",
    "reference": "method.reference",
    "reply": "conversation.reply",
    "rewrite": "container.rewrite",
    "runtime": "backend.llama",
    "schedule": "method.schedule",
    "split": "container.split",
    "suite": "evaluate.suite",
    "tasks": "evaluate.tasks",
    "tasks.answering": "evaluate.tasks.answering",
    "tasks.external": "evaluate.tasks.external",
    "tasks.external_rules": "evaluate.tasks.external_rules",
    "tasks.haystack": "evaluate.tasks.haystack",
    "tasks.intervals": "evaluate.tasks.intervals",
    "tasks.item": "evaluate.tasks.item",
    "tasks.journal": "evaluate.tasks.journal",
    "tasks.kv": "evaluate.tasks.kv",
    "tasks.niah": "evaluate.tasks.niah",
    "tasks.passages": "evaluate.tasks.passages",
    "tasks.passkey": "evaluate.tasks.passkey",
    "tasks.pictures": "evaluate.tasks.pictures",
    "tasks.prompting": "evaluate.tasks.prompting",
    "tasks.records": "evaluate.tasks.records",
    "tasks.report": "evaluate.tasks.report",
    "tasks.ruler": "evaluate.tasks.ruler",
    "tasks.ruler_needles": "evaluate.tasks.ruler_needles",
    "tasks.ruler_parts": "evaluate.tasks.ruler_parts",
    "tasks.ruler_qa": "evaluate.tasks.ruler_qa",
    "tasks.ruler_words": "evaluate.tasks.ruler_words",
    "tasks.scoring": "evaluate.tasks.scoring",
    "tasks.words": "evaluate.tasks.words",
}


# what was a module and is a function of the package: it cannot be both either
FUNCTIONS = {"ask": "conversation.ask", "calibrate": "calibration"}


class _Loader(Loader):
    """Puts the module of the new name in the place of the one that is being imported.

    A package stays an empty one: of the new one's path, its modules would be loaded twice.
    """

    def __init__(self, new: str, is_package: bool) -> None:
        self.new = new
        self.is_package = is_package

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        # named after whoever imports it: the import system's own frames do not count
        warnings.warn(f"{old} is {self.new} now, and its old name will go in the next release",
                      DeprecationWarning, stacklevel=2)
        new = importlib.import_module(self.new)
        if self.is_package:
            module.__doc__ = new.__doc__
        else:
            sys.modules[old] = new


def renamed(module: str, name: str, names: dict[str, str]) -> Any:
    """What a module's attribute of an earlier release is now; AttributeError where it was none.

    names  old -> new, in the same module
    """
    if name not in names:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(f"{module}.{name} is {names[name]} now, and its old name will go in the next "
                  "release", DeprecationWarning, stacklevel=3)
    return getattr(sys.modules[module], names[name])


def find(name: str) -> ModuleSpec | None:
    """How to import a module by its old name, None where there was none."""
    package, _, old = name.partition(".")
    if old in FUNCTIONS:
        raise ModuleNotFoundError(
            f"{name} is a function now; the module is {package}.{FUNCTIONS[old]}", name=name
        )
    new = OLD_NAMES.get(old)
    if new is None:
        return None
    is_package = any(each.startswith(old + ".") for each in OLD_NAMES)
    loader = _Loader(f"{package}.{new}", is_package)
    return ModuleSpec(name, loader, is_package=is_package)
