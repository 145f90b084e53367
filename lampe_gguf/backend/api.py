"""The C API of the patched backend (`llama-lampe.h`) for Python, and whether it is there at all.

Everything else reaches LaMPE in llama.cpp through this module. A stock llama-cpp-python can be
imported too: then `is_patched` is false, and each function that needs the patch says so.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

from ..errors import PACKAGE, LampeError, is_checkout, pip
from ..method.config import LampeConfig
from ..method.fields import LENGTH_POLICIES, METHODS
from ..method.positions import Plan

SETUP_COMMAND = "python3 tools/bootstrap.py setup"

WHEEL_COMMAND = "install --force-reinstall --no-deps --find-links FOLDER"

ABI_VERSION = 4  # of the C API that this module speaks; llama_lampe_version() tells the library's

# the order of enum llama_lampe_method, llama_lampe_length_policy and llama_lampe_path
PATHS = ("off", "portable", "fused")

Context = Any  # a llama_context_p of llama_cpp
Model = Any  # a llama_model_p of llama_cpp


class LampeParams(ctypes.Structure):
    """struct llama_lampe_params"""

    _fields_ = [
        ("max_mapping_length", ctypes.c_double),
        ("slope", ctypes.c_double),
        ("offset", ctypes.c_double),
        ("attention_factor", ctypes.c_double),
        ("version", ctypes.c_uint32),
        ("method", ctypes.c_uint32),
        ("window", ctypes.c_uint32),
        ("context_length", ctypes.c_uint32),
        ("local_window", ctypes.c_uint32),
        ("tail_window", ctypes.c_uint32),
        ("short_length", ctypes.c_uint32),
        ("short_mapping_length", ctypes.c_uint32),
        ("length_policy", ctypes.c_uint32),
        ("length_step", ctypes.c_uint32),
        ("group_size", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    ]


class LampePlan(ctypes.Structure):
    """struct llama_lampe_plan"""

    _fields_ = [
        ("length", ctypes.c_int32),
        ("local_window", ctypes.c_int32),
        ("num", ctypes.c_int32),
        ("den", ctypes.c_int32),
        ("middle_shift", ctypes.c_int32),
        ("tail_start", ctypes.c_int32),
        ("tail_shift", ctypes.c_int32),
        ("mapping_length", ctypes.c_int32),
    ]


def to_params(config: LampeConfig) -> LampeParams:
    """The C struct of a configuration; provenance has no place in it."""
    config.validate()
    params = LampeParams()
    for name, *_ in LampeParams._fields_:
        if name in ("method", "length_policy", "reserved"):
            continue
        setattr(params, name, getattr(config, name))
    params.method = METHODS.index(config.method)
    params.length_policy = LENGTH_POLICIES.index(config.length_policy)
    return params


def from_params(params: LampeParams, provenance: str = "") -> LampeConfig:
    """The configuration of a C struct."""
    fields: dict[str, Any] = {
        name: getattr(params, name)
        for name, *_ in LampeParams._fields_
        if name != "reserved"
    }
    fields["method"] = METHODS[fields["method"]]
    fields["length_policy"] = LENGTH_POLICIES[fields["length_policy"]]
    return LampeConfig(provenance=provenance, **fields)


def to_plan(plan: LampePlan) -> Plan:
    """The plan of a C struct."""
    return Plan(
        length=plan.length,
        local_window=plan.local_window,
        num=plan.num,
        den=plan.den,
        middle_shift=plan.middle_shift,
        tail_start=plan.tail_start,
        tail_shift=plan.tail_shift,
    )


def how_to_install(package: Path = PACKAGE) -> str:
    """What to do where the patched backend is missing, for a sentence: "run ..."."""
    if is_checkout(package):
        return f"run {SETUP_COMMAND}, which builds and installs the one that belongs to it"
    return (f"run {pip()} {WHEEL_COMMAND} \"{_required()}\", where FOLDER is where lampe-gguf's "
            "own wheel came from")


def _required() -> str:
    """What the installed lampe-gguf asks for: a wheel of it names one build of the backend."""
    from importlib import metadata

    try:
        wanted = metadata.requires("lampe-gguf") or []
    except metadata.PackageNotFoundError:
        wanted = []
    return next((each for each in wanted if each.startswith("llama-cpp-python")),
                "llama-cpp-python")


@functools.cache
def llama_cpp() -> Any:
    """The module llama_cpp.llama_cpp, or LampeError with the one command to run."""
    try:
        import llama_cpp.llama_cpp as module
    except ImportError as error:
        raise LampeError(
            f"llama-cpp-python is not installed here ({error}); {how_to_install()}"
        ) from None
    except (OSError, RuntimeError, AttributeError) as error:
        raise LampeError(
            f"llama-cpp-python cannot load its library ({error}); {how_to_install()}"
        ) from None
    return module


def version() -> str:
    """Version of the installed llama-cpp-python, e.g. "0.3.36+lampe016"."""
    from importlib import metadata

    try:
        return metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:  # a source tree on the path
        import llama_cpp as package

        return str(package.__version__)


def library_path() -> str:
    """File that llama.cpp was loaded from."""
    return str(llama_cpp()._lib._name)


def abi_version() -> int:
    """Version of LaMPE's C API in the installed build; 0: it has none, 1: it does not tell yet."""
    library = llama_cpp()._lib
    if hasattr(library, "llama_lampe_version"):
        function = library.llama_lampe_version
        function.restype, function.argtypes = ctypes.c_uint32, []
        return int(function())
    return 1 if hasattr(library, "llama_lampe_last_error") else 0


def is_patched() -> bool:
    """Whether the installed llama-cpp-python holds LaMPE's C API as this module speaks it."""
    return abi_version() == ABI_VERSION


def require_patched() -> None:
    """Raise LampeError, with the one command to run, unless the backend is the patched one."""
    found = abi_version()
    if found == ABI_VERSION:
        return
    if found == 0:
        raise LampeError(
            f"the installed llama-cpp-python {version()} is not the LaMPE build; "
            f"{how_to_install()}"
        )
    raise LampeError(
        f"the installed llama-cpp-python {version()} speaks version {found} of LaMPE's C API and "
        f"this lampe-gguf version {ABI_VERSION}; {how_to_install()}"
    )


@functools.cache
def _library() -> Any:
    require_patched()
    library = llama_cpp()._lib
    pointer = ctypes.POINTER
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "last_error": (ctypes.c_char_p, []),
        "model_params": (ctypes.c_bool, [ctypes.c_void_p, pointer(LampeParams)]),
        "set_enabled": (ctypes.c_int32, [ctypes.c_void_p, ctypes.c_bool]),
        "get_enabled": (ctypes.c_bool, [ctypes.c_void_p]),
        "set_params": (ctypes.c_int32, [ctypes.c_void_p, pointer(LampeParams)]),
        "get_params": (ctypes.c_bool, [ctypes.c_void_p, pointer(LampeParams)]),
        "set_prompt_length": (ctypes.c_int32, [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32]),
        "get_plan": (ctypes.c_bool, [ctypes.c_void_p, ctypes.c_int32, pointer(LampePlan)]),
        "get_plan_seq": (ctypes.c_bool, [ctypes.c_void_p, ctypes.c_int32, pointer(LampePlan)]),
        "set_path": (ctypes.c_int32, [ctypes.c_void_p, ctypes.c_int]),
        "get_path": (ctypes.c_int, [ctypes.c_void_p]),
        "get_path_reason": (ctypes.c_char_p, [ctypes.c_void_p]),
        "dev_supports_fused": (ctypes.c_bool, [ctypes.c_void_p]),
        "set_abort_flag": (None, [ctypes.c_void_p, pointer(ctypes.c_bool)]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"llama_lampe_{name}")
        function.restype = result
        function.argtypes = arguments
    return library


def last_error() -> str:
    """Why the last call of this thread into llama.cpp failed, "" where LaMPE was not the reason."""
    if not is_patched():
        return ""
    reason: bytes | None = _library().llama_lampe_last_error()
    return (reason or b"").decode("utf-8", "replace")


def model_config(model: Model, provenance: str = "") -> LampeConfig | None:
    """The configuration in a model's metadata, None where it has none."""
    params = LampeParams()
    if not _library().llama_lampe_model_params(model, ctypes.byref(params)):
        return None
    return from_params(params, provenance)


def set_enabled(context: Context, enabled: bool) -> None:
    """Switch LaMPE on or off for a context whose memory is empty; LampeError otherwise."""
    _check(_library().llama_lampe_set_enabled(context, enabled), "switch LaMPE on or off")


def is_enabled(context: Context) -> bool:
    """Whether LaMPE is in force; never with a stock backend."""
    return is_patched() and bool(_library().llama_lampe_get_enabled(context))


def set_config(context: Context, config: LampeConfig) -> None:
    """Replace the parameters of a context, at any time; LampeError where it refuses them."""
    params = to_params(config)
    _check(_library().llama_lampe_set_params(context, ctypes.byref(params)), "take the parameters")


def get_config(context: Context, provenance: str = "") -> LampeConfig | None:
    """The parameters in force on a context, None where it has none."""
    params = LampeParams()
    if not _library().llama_lampe_get_params(context, ctypes.byref(params)):
        return None
    return from_params(params, provenance)


def set_prompt_length(context: Context, n_tokens: int, seq_id: int = 0) -> None:
    """Announce the length of the prompt that a sequence is about to read; 0 withdraws it."""
    _check(
        _library().llama_lampe_set_prompt_length(context, seq_id, n_tokens),
        "take the prompt's length",
    )


def get_plan(context: Context, length: int) -> Plan | None:
    """The backend's own plan for an input of `length` tokens, None where LaMPE is off."""
    plan = LampePlan()
    if not _library().llama_lampe_get_plan(context, length, ctypes.byref(plan)):
        return None
    return to_plan(plan)


def get_sequence_plan(context: Context, seq_id: int = 0) -> Plan | None:
    """The backend's own plan of a sequence's newest token, None where there is none."""
    plan = LampePlan()
    if not _library().llama_lampe_get_plan_seq(context, seq_id, ctypes.byref(plan)):
        return None
    return to_plan(plan)


def get_path(context: Context) -> str:
    """Which attention runs: "off", "portable" or "fused"."""
    if not is_patched():
        return "off"
    return PATHS[_library().llama_lampe_get_path(context)]


def set_path(context: Context, path: str) -> None:
    """Take one of PATHS for a context whose memory is empty; LampeError where it cannot be."""
    status = _library().llama_lampe_set_path(context, PATHS.index(path))
    _check(status, f"take the path {path!r}")


def get_path_reason(context: Context) -> str:
    """Why it is not the fused path, "" where it is."""
    if not is_patched():
        return "the backend is not the patched one"
    reason: bytes = _library().llama_lampe_get_path_reason(context)
    return reason.decode()


def why_no_backend() -> str:
    """Why nothing can compute here, "" where something can: once llama.cpp has been initialised.

    A portable build has a library for each set of instructions, which are looked for then.
    """
    count = getattr(llama_cpp()._lib, "ggml_backend_reg_count", None)
    if count is None or count():
        return ""
    folder = Path(library_path()).parent
    return f"no library in {folder} suits this processor; {how_to_install()}"


def is_quantized(kind: int) -> bool:
    """Whether a type of numbers (GGML_TYPE_*) is a quantised one."""
    function = llama_cpp()._lib.ggml_is_quantized
    function.restype, function.argtypes = ctypes.c_bool, [ctypes.c_int]
    return bool(function(kind))


def device_supports_fused(device: int) -> bool:
    """Whether fused attention runs on a device, by its address (ggml_backend_dev_t)."""
    return bool(_library().llama_lampe_dev_supports_fused(device))


def set_abort_flag(context: Context, flag: ctypes.c_bool) -> None:
    """Abort what the context computes while `flag` is true; it must live as long as the context.

    A flag and no callback: Python must not be called from the middle of a computation, where
    Ctrl-C would raise.
    """
    _library().llama_lampe_set_abort_flag(context, ctypes.byref(flag))


def _check(status: int, what: str) -> None:
    if status != 0:
        raise LampeError(f"the backend did not {what}: {last_error() or 'it gave no reason'}")
