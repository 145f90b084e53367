"""The operator's CUDA kernels against the float64 oracle.

On the card that LAMPE_GGML_DEVICE names, as CUDA0; without it, the same source compiled for the
processor (cuda_emulation), which also checks barriers, asynchronous copies and shared memory.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import ggml_ctypes as gg
import numpy as np
import pytest
import test_lampe_op_layouts as layouts
from ggml_device import EMULATED, open_ggml
from op_cases import Case, rms, solve

from lampe_gguf.method.positions import Plan, lampe_plan
from lampe_gguf.method.reference import NEOX, NORM, Rope

DEVICE = os.environ.get("LAMPE_GGML_DEVICE", EMULATED)
# Of what an f16 cache costs: queries, keys and weights are rounded to f16 for tensor cores.
MULTIPLE = 2.0
ONE_MULTIPLE = 3.0  # of one query: few numbers, whose root mean square varies


@pytest.fixture(scope="module")
def ggml() -> gg.Ggml:
    return open_ggml(DEVICE)


def run(ggml: gg.Ggml, case: Case) -> None:
    solved = solve(ggml, case)
    error, cost = rms(solved.got - solved.want), solved.cache_error()
    assert error <= (MULTIPLE if case.n_q > 1 else ONE_MULTIPLE) * cost, (error, cost)


@pytest.mark.parametrize("d, n_q", [
    *((d, n_q) for d in (64, 96, 128) for n_q in (1, 5, 40, 130)), (256, 1), (256, 5), (256, 40)])
def test_head_sizes(ggml: gg.Ggml, d: int, n_q: int) -> None:
    run(ggml, Case(d=d, d_v=d, rope=Rope(d), n_q=n_q))


@pytest.mark.parametrize("n_head, n_head_kv", [(1, 1), (4, 4), (9, 3), (4, 1), (10, 2), (7, 1),
                                               (32, 2)])
@pytest.mark.parametrize("n_q", [1, 2, 33])
def test_grouped_queries(ggml: gg.Ggml, n_head: int, n_head_kv: int, n_q: int) -> None:
    run(ggml, Case(n_head=n_head, n_head_kv=n_head_kv, n_q=n_q, seed=n_head))


@pytest.mark.parametrize("mode", [NORM, NEOX])
@pytest.mark.parametrize("kind", ["full", "partial", "factors"])
@pytest.mark.parametrize("n_q", [1, 20])
def test_rotations(ggml: gg.Ggml, mode: str, kind: str, n_q: int) -> None:
    rope = {
        "full": Rope(64, mode),
        "partial": Rope(24, mode),
        "factors": Rope(64, mode, freq_factors=tuple(np.linspace(1, 8, 32))),
    }[kind]
    run(ggml, Case(rope=rope, n_q=n_q))


@pytest.mark.parametrize("k_type", ["f32", "f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("v_type", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_cache_types(ggml: gg.Ggml, k_type: str, v_type: str) -> None:
    for n_q in (1, 24):
        run(ggml, Case(k_type=k_type, v_type=v_type, n_q=n_q))


@pytest.mark.parametrize("plan", ["identity", "lampe", "rerope", "selfextend", "jetlong"])
@pytest.mark.parametrize("n_q", [1, 64])
def test_plans(ggml: gg.Ggml, plan: str, n_q: int) -> None:
    run(ggml, Case(plan=plan, n_q=n_q, n_kv=333))


class Steps(Case):
    """The plan is another one after every few positions, as the length policy causal has it."""

    def plan_for(self, length: int) -> Plan:
        step = 16 if self.seed else 3
        return lampe_plan(-(-length // step) * step, 40 + length // step % 2, 16, 6)


@pytest.mark.parametrize("n_q", [30, 100])
@pytest.mark.parametrize("seed", [0, 1])  # more of them than keys are rotated for, and fewer
def test_plans_that_change_within_a_batch(ggml: gg.Ggml, n_q: int, seed: int) -> None:
    run(ggml, Steps(n_q=n_q, n_kv=260, n_head=3, n_head_kv=1, seed=seed))


@pytest.mark.parametrize("sequences", [2, 3, 5])
@pytest.mark.parametrize("n_q", [5, 45])
def test_sequences_of_different_lengths_in_one_batch(
    ggml: gg.Ggml, sequences: int, n_q: int
) -> None:
    run(ggml, Case(sequences=sequences, n_q=n_q, n_kv=301, shuffle=True, empty=20))


@pytest.mark.parametrize("n_kv, n_q", [(1, 1), (63, 1), (64, 2), (65, 9), (257, 100), (1000, 1)])
def test_ragged_tails(ggml: gg.Ggml, n_kv: int, n_q: int) -> None:
    run(ggml, Case(n_kv=n_kv, n_q=n_q, shuffle=True))


@pytest.mark.parametrize("n_q", [1, 30])
def test_sinks_softcap_attention_factor(ggml: gg.Ggml, n_q: int) -> None:
    run(ggml, Case(sinks=True, softcap=20.0, n_q=n_q))
    run(ggml, Case(attention_factor=1.07, rope=Rope(32), n_q=n_q))


@pytest.mark.parametrize("n_q", [1, 40])
def test_a_query_that_sees_nothing_gives_zeros(ggml: gg.Ggml, n_q: int) -> None:
    assert not solve(ggml, Case(n_kv=90, n_q=n_q, empty=90)).got.any()


@pytest.mark.parametrize("plan", ["identity", "lampe"])
@pytest.mark.parametrize("hole", [0, 64, 70])
@pytest.mark.parametrize("n_q", [1, 40])
def test_an_empty_cell_before_the_first_position(
    ggml: gg.Ggml, n_q: int, hole: int, plan: str
) -> None:
    run(ggml, Case(n_q=n_q, hole=hole, plan=plan))


@pytest.mark.parametrize("seed", range(16))
def test_random_shapes(ggml: gg.Ggml, seed: int) -> None:
    rng = np.random.default_rng(200 + seed)
    d = int(rng.choice([64, 96, 128]))
    n_head_kv = int(rng.integers(1, 4))
    case = Case(
        d=d, d_v=d, n_head=n_head_kv * int(rng.integers(1, 9)), n_head_kv=n_head_kv,
        n_kv=int(rng.integers(150, 400)), n_q=int(rng.integers(1, 50)),
        rope=Rope(int(rng.choice([d, d // 2])), str(rng.choice([NORM, NEOX]))),
        k_type=str(rng.choice(["f16", "q8_0"])), v_type=str(rng.choice(["f16", "q4_0"])),
        plan=str(rng.choice(["lampe", "jetlong", "selfextend"])),
        sequences=int(rng.integers(1, 4)), shuffle=bool(rng.integers(2)),
        empty=int(rng.integers(0, 30)), softcap=float(rng.choice([0.0, 15.0])), seed=seed,
    )
    run(ggml, case)
    run(ggml, replace(case, n_q=1))


@pytest.fixture
def wide_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases of test_lampe_op_layouts, at a head size and with a mask that the kernels take."""
    monkeypatch.setattr(layouts, "D", 64)
    monkeypatch.setattr(layouts, "ROPE", Rope(64, NORM))
    monkeypatch.setattr(layouts, "MASK", "f16")
    monkeypatch.setattr(layouts, "TOLERANCE", {"f32": 2e-3, "f16": 2e-3})


@pytest.mark.usefixtures("wide_heads")
@pytest.mark.parametrize("kind", ["f32", "f16"])
@pytest.mark.parametrize("name, options", [
    ("streams_of_different_lengths", {"n_threads": 1}),
    ("padded_mask_and_cells_between_streams", {}),
    ("empty_cells_may_hold_anything", {}), ("a_plan_per_query", {}),
    ("future_keys_that_the_mask_shows_are_local", {}), ("a_mask_of_numbers_is_added", {}),
    ("positions_beyond_the_table_are_read_nowhere", {}),
])
@pytest.mark.parametrize("n_q", [1, 50])
def test_layouts(ggml: gg.Ggml, name: str, options: dict[str, Any], kind: str, n_q: int) -> None:
    getattr(layouts, f"test_{name}")(ggml, kind=kind, n_q=n_q, **options)


@pytest.mark.parametrize("change, supported", [
    ({}, True), ({"d": 80, "d_v": 80, "rope": Rope(80)}, False),
    ({"d": 128, "rope": Rope(128)}, False), ({"mask_type": "f32"}, False),
    ({"rope": Rope(22)}, False), ({"k_type": "q4_1"}, False),
])
def test_what_is_supported(
    ggml: gg.Ggml, change: dict[str, Any], supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gg.TYPES, "q4_1", 3)
    case = replace(Case(), **change)
    with ggml.context(1 << 24) as ctx:
        heads = ctx.heads_first
        node = ctx.lampe_attn(
            heads(ctx.tensor(gg.F32, (case.d, case.n_head, 5))),
            heads(ctx.tensor(gg.TYPES[case.k_type], (case.d, case.n_head_kv, 64))),
            heads(ctx.tensor(gg.F16, (case.d_v, case.n_head_kv, 64))),
            ctx.tensor(gg.TYPES[case.mask_type], (64, 5)), ctx.tensor(gg.I32, (8, 5)),
            ctx.tensor(gg.I32, (64,)), ctx.tensor(gg.F32, (case.rope.n_rot, 64)), None,
            scale=1.0, softcap=0.0, mode=gg.ROPE_NEOX)
        assert ggml.supports_op(node) == supported
