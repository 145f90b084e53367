"""Other machines to compute with: the devices of ggml-rpc-servers of this build."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from typing import Any

from ..errors import LampeError
from . import api
from .quiet import quiet

NAME = "RPC"  # what llama.cpp calls these devices
MOST = 16  # servers, as llama.cpp has it

_ENDPOINT = re.compile(r"[^\s:,/\[\]]+:\d{1,5}")
_WHY_BYTES = 512
_CPU, _ACCELERATOR = 0, 3  # enum ggml_backend_dev_type: those that hold no layers of their own


def require_endpoints(servers: Sequence[str]) -> tuple[str, ...]:
    """The servers, each HOST:PORT and once; LampeError otherwise."""
    if isinstance(servers, str):
        servers = servers.split(",")
    found = tuple(dict.fromkeys(servers))
    for server in found:
        if not (isinstance(server, str) and _ENDPOINT.fullmatch(server)
                and int(server.rpartition(":")[2]) < 2**16):
            raise LampeError(f"{server!r:.80} is no RPC server; give HOST:PORT, such as "
                             "192.168.1.2:50052")
    if len(found) > MOST:
        raise LampeError(f"there are {len(found)} RPC servers; give at most {MOST}")
    return found


def connect(servers: Sequence[str]) -> Any:
    """The devices to load a model with: those of the servers, then this machine's.

    An array for llama_model_params.devices that ends with a null, which must live as long as the
    model is loaded. LampeError, with the reason, where a server cannot be used.
    """
    module = api.llama_cpp()
    module.llama_backend_init()  # loads backends that are libraries of their own
    library = module._lib
    registry = _call(library.ggml_backend_reg_by_name, ctypes.c_void_p, NAME.encode())
    if not registry:
        raise LampeError("the installed backend was built without RPC; build it without "
                         "-DGGML_RPC=OFF")
    devices: list[int] = []
    for server in servers:
        add = _function(library, registry, "ggml_backend_rpc_add_server", ctypes.c_void_p,
                        ctypes.c_char_p)
        added = add(server.encode())
        if not added:
            raise LampeError(_why(library, registry) or f"there is no RPC server at {server}")
        count = _call(library.ggml_backend_reg_dev_count, ctypes.c_size_t, ctypes.c_void_p(added))
        devices += [
            _call(library.ggml_backend_reg_dev_get, ctypes.c_void_p, ctypes.c_void_p(added),
                  ctypes.c_size_t(index))
            for index in range(count)
        ]
    devices += _own_devices(library)
    return (ctypes.c_void_p * (len(devices) + 1))(*devices, None)


def free_memory(servers: Sequence[str]) -> dict[str, int]:
    """Free bytes of each device of the servers, by its name; LampeError as connect() has it."""
    if not servers:
        return {}
    library = api.llama_cpp()._lib
    with quiet(True):  # the reason is raised
        devices = connect(servers)
    own = _own_devices(library)
    found: dict[str, int] = {}
    for device in devices:
        if device is None or device in own:
            continue
        name = _call(library.ggml_backend_dev_name, ctypes.c_char_p, ctypes.c_void_p(device))
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        _call(library.ggml_backend_dev_memory, None, ctypes.c_void_p(device),
              ctypes.byref(free), ctypes.byref(total))
        found[name.decode()] = free.value
    return found


def _own_devices(library: Any) -> list[int]:
    """This machine's devices that can hold layers, besides the processor."""
    count = _call(library.ggml_backend_dev_count, ctypes.c_size_t)
    found = [_call(library.ggml_backend_dev_get, ctypes.c_void_p, ctypes.c_size_t(index))
             for index in range(count)]
    return [device for device in found
            if _call(library.ggml_backend_dev_type, ctypes.c_int, ctypes.c_void_p(device))
            not in (_CPU, _ACCELERATOR)]


def has_devices() -> bool:
    """Whether this machine has a device that can hold layers, besides the processor."""
    return bool(_own_devices(api.llama_cpp()._lib))


def why_lost() -> str:
    """Why the last connection was not to be had, "" where it was, or where there was none."""
    library = api.llama_cpp()._lib
    registry = _call(library.ggml_backend_reg_by_name, ctypes.c_void_p, NAME.encode())
    return _why(library, registry) if registry else ""


def _why(library: Any, registry: int) -> str:
    ask = _function(library, registry, "ggml_backend_rpc_get_error", ctypes.c_bool,
                    ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
    text = ctypes.create_string_buffer(_WHY_BYTES)
    ask(None, text, _WHY_BYTES)
    return text.value.decode("utf-8", "replace")


def _function(library: Any, registry: int, name: str, result: Any, *kinds: Any) -> Any:
    address = _call(library.ggml_backend_reg_get_proc_address, ctypes.c_void_p,
                    ctypes.c_void_p(registry), name.encode())
    if not address:
        raise LampeError(f"the installed backend's RPC has no {name}; {api.how_to_install()}")
    return ctypes.CFUNCTYPE(result, *kinds)(address)


def _call(function: Any, result: Any, *arguments: Any) -> Any:
    function.restype = result
    return function(*arguments)
