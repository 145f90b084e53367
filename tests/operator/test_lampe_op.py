"""The fused op on the CPU against the float64 oracle, on random shapes.

The tolerance is a multiple of what plain low precision costs: the same attention in float32
NumPy on the same (already dequantised) keys and values. Where the kernel multiplies integers of 16
bits, it is what rounding such keys and values to f16 costs, as a cache does.
"""

from __future__ import annotations

import ggml_ctypes as gg
import numpy as np
import pytest
from op_cases import Case, rms, solve

from lampe_gguf.method.reference import NEOX, NORM, Rope

MULTIPLE = 8.0  # of the plain float32 error
FLOOR = 2e-6  # relative to the largest output: below it, rounding alone decides
INTEGER_MULTIPLE = 1.5  # of the root mean square of what an f16 cache costs


@pytest.fixture(scope="module")
def ggml() -> gg.Ggml:
    found = gg.Ggml()
    assert found.has_lampe_attn, "the installed llama_cpp is not the patched build"
    return found


def run(ggml: gg.Ggml, case: Case) -> None:
    solved = solve(ggml, case)
    got, want = solved.got, solved.want
    if case.wide and ggml.multiplies_integers:
        cost = solved.cache_error()
        assert rms(got - want) <= INTEGER_MULTIPLE * cost, (rms(got - want), cost)
        return
    cost = np.abs(solved.plain() - want).max() if case.attention_factor == 1.0 else 0.0
    allowed = MULTIPLE * max(cost, FLOOR * np.abs(want).max())
    assert np.abs(got - want).max() <= allowed, (np.abs(got - want).max(), cost)


@pytest.mark.parametrize("n_q", [1, 5, 40])
@pytest.mark.parametrize("d", [64, 80, 96, 128, 256])
def test_head_sizes(ggml: gg.Ggml, d: int, n_q: int) -> None:
    run(ggml, Case(d=d, d_v=d, rope=Rope(d), n_q=n_q))


@pytest.mark.parametrize("n_head, n_head_kv", [(1, 1), (4, 4), (9, 3), (4, 1), (10, 2), (8, 1)])
@pytest.mark.parametrize("n_q", [1, 33])
def test_grouped_queries(ggml: gg.Ggml, n_head: int, n_head_kv: int, n_q: int) -> None:
    run(ggml, Case(n_head=n_head, n_head_kv=n_head_kv, n_q=n_q, seed=n_head))


@pytest.mark.parametrize("mode", [NORM, NEOX])
@pytest.mark.parametrize("kind", ["full", "partial", "factors", "yarn"])
@pytest.mark.parametrize("n_q", [2, 20])
def test_rotations(ggml: gg.Ggml, mode: str, kind: str, n_q: int) -> None:
    rope = {
        "full": Rope(64, mode),
        "partial": Rope(24, mode),
        "factors": Rope(64, mode, freq_factors=tuple(np.linspace(1, 8, 32))),
        "yarn": Rope(64, mode, freq_scale=0.25, ext_factor=1.0, n_ctx_orig=64),
    }[kind]
    run(ggml, Case(rope=rope, n_q=n_q))


@pytest.mark.parametrize("k_type", ["f32", "f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("v_type", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_cache_types(ggml: gg.Ggml, k_type: str, v_type: str) -> None:
    for n_q in (1, 24):
        run(ggml, Case(k_type=k_type, v_type=v_type, n_q=n_q, mask_type="f32"))


@pytest.mark.parametrize("plan", ["identity", "lampe", "rerope", "selfextend", "jetlong"])
@pytest.mark.parametrize("n_q", [1, 64])
def test_plans(ggml: gg.Ggml, plan: str, n_q: int) -> None:
    run(ggml, Case(plan=plan, n_q=n_q, n_kv=333))


@pytest.mark.parametrize("sequences", [2, 3, 5])
@pytest.mark.parametrize("n_q", [5, 45])
def test_sequences_of_different_lengths_in_one_batch(
    ggml: gg.Ggml, sequences: int, n_q: int
) -> None:
    run(ggml, Case(sequences=sequences, n_q=n_q, n_kv=301, shuffle=True, empty=20))


@pytest.mark.parametrize("n_threads", [1, 2, 3, 7])
@pytest.mark.parametrize("n_kv, n_q", [(1, 1), (63, 1), (64, 2), (65, 9), (257, 100)])
def test_ragged_tails_and_threads(ggml: gg.Ggml, n_kv: int, n_q: int, n_threads: int) -> None:
    run(ggml, Case(n_kv=n_kv, n_q=min(n_q, n_kv), n_threads=n_threads, shuffle=True))


def test_values_of_another_size_sinks_softcap_attention_factor(ggml: gg.Ggml) -> None:
    for n_q in (3, 30):
        run(ggml, Case(d=96, d_v=48, rope=Rope(96), n_q=n_q))
        run(ggml, Case(sinks=True, softcap=20.0, n_q=n_q))
        run(ggml, Case(attention_factor=1.07, rope=Rope(32), n_q=n_q))


def test_a_query_that_sees_nothing_gives_zeros(ggml: gg.Ggml) -> None:
    run(ggml, Case(n_kv=90, n_q=40, empty=90))


@pytest.mark.parametrize("seed", range(20))
def test_random_shapes(ggml: gg.Ggml, seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    d = int(rng.choice([64, 96, 128]))
    n_head_kv = int(rng.integers(1, 4))
    run(ggml, Case(
        d=d, d_v=d, n_head=n_head_kv * int(rng.integers(1, 9)), n_head_kv=n_head_kv,
        n_kv=int(rng.integers(150, 500)), n_q=int(rng.integers(1, 70)),
        rope=Rope(int(rng.choice([d, d // 2])), str(rng.choice([NORM, NEOX]))),
        k_type=str(rng.choice(["f16", "q8_0"])), v_type=str(rng.choice(["f16", "q4_0"])),
        plan=str(rng.choice(["lampe", "jetlong", "selfextend"])),
        sequences=int(rng.integers(1, 4)), shuffle=bool(rng.integers(2)),
        empty=int(rng.integers(0, 30)), softcap=float(rng.choice([0.0, 15.0])), seed=seed,
    ))


@pytest.mark.parametrize("plan", ["identity", "lampe", "selfextend"])
@pytest.mark.parametrize("hole", [0, 64, 70])
@pytest.mark.parametrize("n_q", [1, 40])
def test_an_empty_cell_before_the_first_position(
    ggml: gg.Ggml, n_q: int, hole: int, plan: str
) -> None:
    # a tile of keys begins at cell 64
    run(ggml, Case(n_q=n_q, hole=hole, plan=plan))
