"""LaMPE for GGUF models: contexts beyond the training window, without training.

Names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

    from .backend.calls import Cancelled as Cancelled
    from .backend.llama import LampeLlama as LampeLlama
    from .calibration.job import calibrate as calibrate
    from .conversation.ask import ask as ask
    from .conversation.chat import Chat as Chat
    from .conversation.documents import Document as Document
    from .conversation.prompt import plain_text as plain_text
    from .conversation.shelf import ChatEntry as ChatEntry
    from .conversation.turn import Turn as Turn
    from .convert import convert_gguf as convert_gguf
    from .errors import FieldError as FieldError
    from .errors import LampeError as LampeError
    from .errors import UsageError as UsageError
    from .evaluate.perplexity import perplexity as perplexity
    from .huggingface.enable import enable_lampe as enable_lampe
    from .inspect import inspect_gguf as inspect_gguf
    from .method.config import LampeConfig as LampeConfig
    from .method.positions import Plan as Plan
    from .method.positions import relative_position as relative_position
    from .model.presets import choose as choose_config  # noqa: F401
    from .model.presets import default_config as default_config
    from .model.presets import preset as preset
    from .readings.keeping import Readings as Readings
    from .session.dialogue import Dialogue as Dialogue
    from .session.events import Event as Event
    from .session.events import Failed as Failed
    from .session.events import Finished as Finished
    from .session.events import Note as Note
    from .session.events import Progress as Progress
    from .session.events import Stopped as Stopped
    from .session.events import Token as Token
    from .session.found import Answered as Answered
    from .session.found import Counted as Counted
    from .session.found import Examined as Examined
    from .session.found import Opened as Opened
    from .session.request import Request as Request
    from .session.session import Session as Session
    from .strip import strip_gguf as strip_gguf

# exported name -> (module, name there). A function never has its module's name: importing the
# module would put it in the function's place.
_EXPORTS = {
    "convert_gguf": ("convert", "convert_gguf"),
    "strip_gguf": ("strip", "strip_gguf"),
    "inspect_gguf": ("inspect", "inspect_gguf"),
    "LampeLlama": ("backend.llama", "LampeLlama"),
    "Cancelled": ("backend.calls", "Cancelled"),
    "LampeConfig": ("method.config", "LampeConfig"),
    "Plan": ("method.positions", "Plan"),
    "relative_position": ("method.positions", "relative_position"),
    "default_config": ("model.presets", "default_config"),
    "preset": ("model.presets", "preset"),
    "choose_config": ("model.presets", "choose"),
    "ask": ("conversation.ask", "ask"),
    "Chat": ("conversation.chat", "Chat"),
    "Document": ("conversation.documents", "Document"),
    "ChatEntry": ("conversation.shelf", "ChatEntry"),
    "Turn": ("conversation.turn", "Turn"),
    "Session": ("session.session", "Session"),
    "Dialogue": ("session.dialogue", "Dialogue"),
    "Request": ("session.request", "Request"),
    "Event": ("session.events", "Event"),
    "Progress": ("session.events", "Progress"),
    "Token": ("session.events", "Token"),
    "Note": ("session.events", "Note"),
    "Finished": ("session.events", "Finished"),
    "Stopped": ("session.events", "Stopped"),
    "Failed": ("session.events", "Failed"),
    "Opened": ("session.found", "Opened"),
    "Examined": ("session.found", "Examined"),
    "Counted": ("session.found", "Counted"),
    "Answered": ("session.found", "Answered"),
    "Readings": ("readings.keeping", "Readings"),
    "plain_text": ("conversation.prompt", "plain_text"),
    "perplexity": ("evaluate.perplexity", "perplexity"),
    "calibrate": ("calibration.job", "calibrate"),
    "enable_lampe": ("huggingface.enable", "enable_lampe"),
    "LampeError": ("errors", "LampeError"),
    "UsageError": ("errors", "UsageError"),
    "FieldError": ("errors", "FieldError"),
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _EXPORTS[name]
    value = getattr(import_module(f".{module}", __name__), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})


class _OldNames:
    """Finds modules by the names of earlier releases, where there is no file of such a name."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if not name.startswith(__name__ + "."):
            return None
        from .old_names import find

        return find(name)


# right after the finder of files: an editable install's might know an old tree
_finders = [getattr(each, "__name__", "") for each in sys.meta_path]
sys.meta_path.insert(
    _finders.index("PathFinder") + 1 if "PathFinder" in _finders else len(_finders), _OldNames
)
