"""What bench_threads.py runs for one way of waiting: tokens per second of reading and writing.

Run with one JSON object; prints one. The first run reads what comes before the last batch of each
length and keeps it in a file; the others begin with that.
"""

from __future__ import annotations

import ctypes
import json
import pickle
import random
import sys
import time
from pathlib import Path
from typing import Any

from lampe_gguf.backend import api
from lampe_gguf.bench.side import open_side, read

WRITTEN = 24


class _PoolParams(ctypes.Structure):
    """struct ggml_threadpool_params"""

    _fields_ = [("cpumask", ctypes.c_bool * 512), ("n_threads", ctypes.c_int),
                ("priority", ctypes.c_int), ("poll", ctypes.c_uint32),
                ("strict_cpu", ctypes.c_bool), ("paused", ctypes.c_bool)]


def attach_pool(llm: Any, threads: int, poll: int) -> None:
    """Have a context compute with threads that stay until the process ends."""
    folder = Path(api.library_path()).parent
    ggml, base = (ctypes.CDLL(str(folder / f"lib{name}.so")) for name in ("ggml", "ggml-base"))
    ggml.ggml_backend_reg_by_name.restype = ctypes.c_void_p
    base.ggml_backend_reg_get_proc_address.restype = ctypes.c_void_p
    base.ggml_backend_reg_get_proc_address.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    backend = ggml.ggml_backend_reg_by_name(b"CPU")
    address = base.ggml_backend_reg_get_proc_address(backend, b"ggml_threadpool_new")
    make = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_PoolParams))(address)
    params = _PoolParams()
    base.ggml_threadpool_params_init.argtypes = [ctypes.POINTER(_PoolParams), ctypes.c_int]
    base.ggml_threadpool_params_init(ctypes.byref(params), threads)
    assert params.n_threads == threads, "the struct is another one in this build"
    params.poll = poll
    pool = make(ctypes.byref(params))
    attach = api.llama_cpp()._lib.llama_attach_threadpool
    attach.argtypes, attach.restype = [ctypes.c_void_p] * 3, None
    attach(llm._ctx.ctx, pool, pool)


def begin(llm: Any, tokens: list[int], file: Path) -> None:
    """Have the context hold `tokens`, as read now or as kept in `file`."""
    if file.exists():
        llm.load_state(pickle.loads(file.read_bytes()))
        return
    llm.reset()
    read(llm, tokens)
    beside = file.with_suffix(".partial")
    beside.write_bytes(pickle.dumps(llm.save_state()))
    beside.replace(file)


def main() -> None:
    options = json.loads(sys.argv[1])
    lengths, threads, batch = options["lengths"], options["threads"], options["batch"]
    llm = open_side("lampe", options["model"], n_ctx=lengths[-1] + batch, n_batch=batch,
                    n_threads=threads, n_threads_batch=threads)
    if options["poll"] is not None:
        attach_pool(llm, threads, options["poll"])
    numbers = random.Random(0)
    tokens = [numbers.randrange(llm.n_vocab()) for _ in range(lengths[-1] + WRITTEN)]
    found = {}
    clock = getattr(time, options["clock"])
    # a kept state has room for as many tokens as the context that it came from
    name = f"{Path(options['model']).stem}-{api.version()}-{lengths[-1]}"
    for length in lengths:
        begin(llm, tokens[: length - batch], Path(options["states"]) / f"{name}-{length}.state")
        start = clock()
        read(llm, tokens[length - batch : length])
        found[f"reading at {length:,}"] = batch / (clock() - start)
        llm.eval(tokens[length : length + 1])
        start = clock()
        for token in tokens[length + 1 : length + WRITTEN]:
            llm.eval([token])
        found[f"writing at {length:,}"] = (WRITTEN - 1) / (clock() - start)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
