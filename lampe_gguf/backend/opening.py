"""While a model is loaded: how far it is, how to stop it, and why it failed."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable
from traceback import walk_tb
from typing import Any

from ..container.reader import GGUFFile
from ..errors import LampeError
from . import api, peers
from .native_path import NativePath

OnLoad = Callable[[float], None]  # the part of the file that is loaded, 0 to 1

# what llama_cpp raises; the patched build says behind it why LaMPE refused
SAID = ("(llama_decode returned -?[0-9]+|Failed to create llama_context|"
        "Failed to set llama state data|Failed to load model from file: {path}): (.*)")

NO_CONTEXT = "Failed to create llama_context"
UPSTREAM_VALUES = "V cache quantization requires"  # what llama.cpp says of it


class Loading:
    """What llama.cpp asks between two tensors; it stops loading where told to.

    on_load  called with the part that is loaded, in the thread that loads; what it raises stops
             the loading
    raised   that
    devices  what it is loaded onto, as peers.connect() gives it; None: as llama.cpp chooses
    """

    def __init__(self, on_load: OnLoad | None) -> None:
        self.raised: BaseException | None = None
        self.devices: Any = None
        self._on_load = on_load
        self._stopped = False
        # ctypes keeps no reference of its own, and C calls it as long as it loads
        self._callback = api.llama_cpp().llama_progress_callback(self._on_tensor)

    def watch(self, params: Any) -> None:
        """Let the llama_model_params ask."""
        params.progress_callback = self._callback
        if self.devices is not None:
            params.devices = ctypes.addressof(self.devices)

    def stop(self) -> None:
        """Stop before the next tensor; from any thread."""
        self._stopped = True

    def end(self) -> None:
        """It is loaded, or it is not: nobody asks any more."""
        del self._callback

    def _on_tensor(self, part: float, _: Any) -> bool:
        # nothing may be raised into C: it would be printed and forgotten
        try:
            if self._on_load is not None and not self._stopped:
                self._on_load(part)
        except BaseException as error:
            self.raised = error
            return False
        return not self._stopped


class ModelParams:
    """The attribute `model_params`: Llama makes it where it is opened, and `_loading` watches."""

    def __get__(self, llm: Any, owner: type | None = None) -> Any:
        return self if llm is None else llm.__dict__["model_params"]

    def __set__(self, llm: Any, params: Any) -> None:
        llm._loading.watch(params)
        llm.__dict__["model_params"] = params


def native(model_path: str | bytes | os.PathLike[str]) -> NativePath:
    """The path of a model, as os.fspath has it; LampeError where there is no file."""
    path = NativePath(os.fsdecode(model_path))
    if os.path.isdir(path):
        raise LampeError(f"{path} is a folder; give the path of a GGUF file")
    if not os.path.exists(path):
        raise LampeError(f"there is no file {path}; give the path of a GGUF model")
    return path


def failure(llm: Any, error: Exception, path: str) -> BaseException:
    """What to raise for what Llama raised while it opened a model; itself where that says it."""
    if _in_template(error):
        return LampeError(f"the model's chat template cannot be read ({error}); get the file of "
                          "another maker")
    if isinstance(error, MemoryError):
        return memory_error(llm)
    if not isinstance(error, ValueError):
        return error
    message = str(error)
    if llm._loading.raised is not None:
        raised: BaseException = llm._loading.raised
        return raised
    if message.startswith(NO_CONTEXT):
        return LampeError(_lost(llm) or context_reason(llm, message))
    try:
        with GGUFFile(path):  # it says what is wrong with a file better than llama.cpp does
            pass
    except LampeError as found:
        return found
    return LampeError(api.why_no_backend() or _lost(llm) or _no_devices(llm)
                      or reason(message, path))


def _lost(llm: Any) -> str:
    """Why a machine that it was to be loaded onto is no longer there, "" where all are."""
    return "" if llm._loading.devices is None else peers.why_lost()


def _no_devices(llm: Any) -> str:
    """What is wrong where tensors were to be split across devices and there is none."""
    params = llm.__dict__.get("model_params")
    tensors = api.llama_cpp().LLAMA_SPLIT_MODE_TENSOR
    if params is None or params.split_mode != tensors or llm._loading.devices is not None:
        return ""
    return "" if peers.has_devices() else (
        "tensors cannot be split across devices (split_mode) where there is only the processor; "
        "pass another split_mode")


def _in_template(error: Exception) -> bool:
    """Whether it comes from compiling a template, which may be anything: RecursionError, too."""
    names = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__))
    return any(name.startswith("jinja2.") for name in names)


def reason(message: str, path: str = "") -> str:
    """Why llama_cpp raised that, in one sentence.

    The reason comes with the exception: the one that the backend keeps is of another thread, where
    that computed, or of a later call.
    """
    said = re.fullmatch(SAID.format(path=re.escape(path)), message, re.DOTALL)
    if said:
        return said[2]
    if message == "llama_decode returned 1":
        return "the context is full; open the model with a larger n_ctx"
    return message


def context_reason(llm: Any, message: str) -> str:
    """Why no context was made: the reason that came with it, or what was asked for."""
    given = reason(message)
    if given != message and UPSTREAM_VALUES not in given:
        return given
    module = api.llama_cpp()
    params = llm.context_params
    off = params.flash_attn_type == module.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if off and api.is_quantized(params.type_v):
        return ("a quantised cache of values (type_v) needs flash attention here; pass "
                "flash_attn=True, or leave type_v out")
    if off and llm.model_params.split_mode == module.LLAMA_SPLIT_MODE_TENSOR:
        return ("tensors split across devices (split_mode) need flash attention; pass "
                "flash_attn=True, or another split_mode")
    return f"{given}; is there memory for a context of that length? give a smaller n_ctx"


def memory_error(llm: Any) -> LampeError:
    """What Llama had no memory for: the logits that it keeps, [n_ctx or n_batch, n_vocab]."""
    n_vocab = getattr(llm, "_n_vocab", None)
    if n_vocab is None:
        return LampeError("there is no memory to open the model; give a smaller n_ctx")
    logits_all = bool(llm._logits_all)
    rows = llm.context_params.n_ctx if logits_all else llm.n_batch
    size = f"{rows:,} x {n_vocab:,} numbers, {rows * n_vocab * 4 / 2**30:,.1f} GiB"
    if logits_all:
        return LampeError(
            f"logits_all=True keeps the logits of every token of the context ({size}), for which "
            "there is no memory; leave it out and use read_logits(), which gives them batch by "
            "batch, or pass a smaller n_ctx"
        )
    return LampeError(f"there is no memory for the logits of a batch ({size}); pass a smaller "
                      "n_batch")
