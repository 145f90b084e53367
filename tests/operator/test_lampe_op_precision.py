"""What the fused op's precision costs: beside stock's, and where numbers are at their limits.

In a batch over a cache of 16 bits or fewer the kernel multiplies integers; nothing here knows
whether it does, and all of it holds either way.
"""

from __future__ import annotations

import ggml_ctypes as gg
import numpy as np
import pytest
from measure import bench_attention as bench

from lampe_gguf.method.positions import identity_plan
from lampe_gguf.method.reference import NORM, Rope, rope_table

N_KV, N_Q = 192, 64


@pytest.fixture(scope="module")
def ggml() -> gg.Ggml:
    return gg.Ggml()


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("shape", ["smollm2-135m", "qwen2.5-1.5b"])
def test_a_batch_is_about_as_precise_as_stock(ggml: gg.Ggml, shape: str, spread: float) -> None:
    # stock's error in a batch is that of the f16 cache alone
    stock, lampe = bench.accuracy(ggml, shape, 64, "f16", spread, 2)
    assert lampe <= 1.15 * stock


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("shape", ["smollm2-135m", "qwen2.5-1.5b"])
def test_decoding_is_more_precise_than_stock(ggml: gg.Ggml, shape: str, spread: float) -> None:
    stock, lampe = bench.accuracy(ggml, shape, 1, "f16", spread, 2)
    assert lampe <= stock


def attend(ggml: gg.Ggml, q: np.ndarray, k: np.ndarray, v: np.ndarray, kv: str = "f16",
           n_rot: int = 2) -> np.ndarray:
    """One head, every query sees every key, and only the first pair is rotated."""
    (n_q, d), n_kv = q.shape, len(k)
    plan = identity_plan(n_kv)
    rows = bench.plan_rows(plan, np.full(n_q, n_kv - 1))
    table = rope_table(n_kv + 3, Rope(n_rot, NORM)).astype(np.float32)

    def cache(values: np.ndarray) -> int:
        raw = gg.stored(np.ascontiguousarray(values, np.float32), kv)[0]
        return ctx.tensor(gg.TYPES[kv], (values.shape[1], n_kv, 1), raw)

    with ggml.context(1 << 24) as ctx:
        node = ctx.lampe_attn(
            ctx.tensor(gg.F32, (d, n_q, 1), q.astype(np.float32)), cache(k), cache(v),
            ctx.tensor(gg.F16, (n_kv, n_q), np.zeros((n_q, n_kv), np.float16)),
            ctx.tensor(gg.I32, (8, n_q), rows),
            ctx.tensor(gg.I32, (n_kv,), np.arange(n_kv, dtype=np.int32)),
            ctx.tensor(gg.F32, (n_rot, n_kv + 3), table), None,
            scale=1.0, softcap=0.0, mode=gg.ROPE_NORM,
        )
        ctx.graph(node, 2).compute()
        return ctx.read(node, (n_q, v.shape[1]))


@pytest.mark.parametrize("d", [64, 96, 128, 256])
@pytest.mark.parametrize("kind", ["flat", "one", "signs"])
def test_no_sum_of_products_overflows(ggml: gg.Ggml, d: int, kind: str) -> None:
    # all of a sum's products at their largest, with one sign
    q = np.full((N_Q, d), 0.1)
    k = np.zeros((N_KV, d))
    v = np.ones((N_KV, d))
    if kind == "one":  # one key has nearly all of the weight
        k[77] = 5.0
        v[:] = np.linspace(-1, 1, N_KV)[:, None]
        v[77] = -3.0
    if kind == "signs":
        k[:] = 1.0
        k[:, :2] = 0.0
        v[:, ::2] = -1.0
    weight = np.exp((q @ k.T)[0] - (q @ k.T)[0].max())
    want = weight @ v / weight.sum()
    assert np.abs(attend(ggml, q, k, v) - want).max() <= 1e-3 * np.abs(want).max()


@pytest.mark.parametrize("size", [1e-25, 1e-15, 1e-4, 1.0, 1e4, 1e15])
def test_values_of_any_size(ggml: gg.Ggml, size: float) -> None:
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(N_Q, 64)), 0.1 * rng.normal(size=(N_KV, 64))
    v = gg.stored((size * rng.normal(size=(N_KV, 64))).astype(np.float32), "bf16")[1]
    k = gg.stored(k.astype(np.float32), "bf16")[1]
    # the rotation is left out of account: its pair is zero
    k[:, :2] = 0.0
    weight = np.exp(q @ k.T.astype(np.float64))
    want = weight @ v.astype(np.float64) / weight.sum(1, keepdims=True)
    got = attend(ggml, q, k, v, "bf16")
    assert np.abs(got - want).max() <= 2e-3 * np.abs(want).max()


def test_a_zero_vector_is_no_division_by_zero(ggml: gg.Ggml) -> None:
    zero = np.zeros((N_KV, 64))
    assert (attend(ggml, zero[:N_Q], zero, zero) == 0).all()


@pytest.mark.parametrize("kv", ["f16", "bf16", "f32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("n_q", [1, N_Q])
def test_what_is_not_finite_is_not_hidden(ggml: gg.Ggml, n_q: int, bad: float, kv: str) -> None:
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(n_q, 64)), rng.normal(size=(N_KV, 64)), rng.normal(size=(N_KV, 64))
    broken = v.copy()
    broken[100, 17] = bad
    assert not np.isfinite(attend(ggml, q, k, broken, kv)[:, 17]).any()
    broken = k.copy()
    broken[100, 17] = np.nan
    assert not np.isfinite(attend(ggml, q, broken, v, kv)).any()
