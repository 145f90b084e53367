"""The emulation of CUDA that the operator's kernels are tested with: it computes what a card does,
and finds the mistakes that it is there to find."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import numpy as np
import pytest
from cuda_emulation import build

LANES = np.arange(32)


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    return ctypes.CDLL(str(build.build_from([build.SELFTEST])))


def at(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def call(function: str, arguments: str, order: int = 0, sanitize: bool = False) -> str:
    """What a call writes to stderr, where the process ends by it; its output otherwise."""
    path = build.build_from([build.SELFTEST], sanitize=sanitize)
    code = (
        "import ctypes, numpy as np\n"
        f"library = ctypes.CDLL({str(path)!r})\n"
        "def at(x): return ctypes.c_void_p(x.ctypes.data)\n"
        "x = np.arange(512, dtype=np.int32)[:256]\n"
        "out = np.zeros(256, np.int32)\n"
        f"library.{function}({arguments})\n"
        "print(*out)\n"
    )
    env = {**build.environment(sanitize), "LAMPE_EMULATED_ORDER": str(order)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else done.stderr


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["rows", "trans", "small"])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_product_of_matrices(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, kind: int, order: int
) -> None:
    monkeypatch.setenv("LAMPE_EMULATED_ORDER", str(order))
    rng = np.random.default_rng(kind)
    n = 5
    a, b = rng.normal(size=(2, n, 64, 64)).astype(np.float16)
    c = np.full((n, 64, 64), np.nan, np.float32)
    library.selftest_multiply(at(a), at(b), at(c), n, kind)
    wanted = a.astype(np.float64) @ (b if kind == 1 else b.swapaxes(1, 2)).astype(np.float64)
    np.testing.assert_allclose(c, wanted, atol=1e-4)


@pytest.mark.parametrize("i, j", [(16, 8), (16, 4), (8, 8)])
def test_ldmatrix_gives_a_lane_what_its_tile_names(library: ctypes.CDLL, i: int, j: int) -> None:
    x = np.arange(16 * 12, dtype=np.int32)
    loaded, generic = np.zeros((2, 32, i * j // 32), np.int32)
    library.selftest_read_tile(at(x), at(loaded), at(generic), i, j)
    np.testing.assert_array_equal(loaded, generic)
    # the fragment of A as PTX's manual has it: its rows are lane/4, and 8 below
    rows, columns = LANES // 4, LANES % 4
    np.testing.assert_array_equal(loaded[:, 0], rows * 12 + columns)
    below = 0 if i == 8 else 8
    np.testing.assert_array_equal(
        loaded[:, 1], (rows + below) * 12 + columns + (4 if i == 8 else 0))


@pytest.mark.parametrize("order", [0, 1, 7])
def test_reduction(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    monkeypatch.setenv("LAMPE_EMULATED_ORDER", str(order))
    n, rows = 1000, 6
    x = np.random.default_rng(1).normal(size=(rows, n)).astype(np.float32)
    x[2] = abs(x[2])
    total, most = np.zeros((2, rows), np.float32)
    negative, some = np.zeros((2, rows), np.int32)
    library.selftest_reduce(at(x), n, rows, at(total), at(most), at(negative), at(some))
    np.testing.assert_allclose(total, x.sum(1, dtype=np.float64), atol=1e-3)
    np.testing.assert_array_equal(most, x.max(1))
    np.testing.assert_array_equal(negative, (x < 0).sum(1))
    np.testing.assert_array_equal(some, [1, 1, 0, 1, 1, 1])


def test_shuffles_in_groups_of_eight(library: ctypes.CDLL) -> None:
    out = np.zeros((32, 5), np.int32)
    library.selftest_shuffle(at(out))
    group, inside = LANES // 8 * 8, LANES % 8
    np.testing.assert_array_equal(out[:, 0], group + 3)
    # groups before its own can be reached, those after cannot
    np.testing.assert_array_equal(out[:, 1], np.where(group % 16 == 8, LANES - 8, LANES))
    np.testing.assert_array_equal(out[:, 2], np.where(inside < 6, LANES + 2, LANES))
    np.testing.assert_array_equal(out[:, 3], np.where(inside >= 2, LANES - 2, LANES))
    np.testing.assert_array_equal(out[:, 4], np.where(LANES >= 16, 0xAAAA, 0))


def test_rounding(library: ctypes.CDLL) -> None:
    rng = np.random.default_rng(3)
    x = np.concatenate([
        rng.normal(size=3000) * 10.0 ** rng.integers(-9, 6, 3000),
        [0.0, -0.0, np.inf, -np.inf, 65504, 65519.9, 65520, 2.0**-24, 2.0**-25, 1.5 * 2.0**-25,
         2049, 2051, 1 + 2.0**-8, 1 + 3 * 2.0**-8],
    ]).astype(np.float32)
    half, short = np.zeros(len(x), np.float16), np.zeros(len(x), np.uint16)
    twice = np.zeros((len(x), 2), np.float16)
    library.selftest_convert(at(x), at(half), at(short), at(twice), len(x))
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float16)
        np.testing.assert_array_equal(half.view(np.uint16), wanted.view(np.uint16))
        np.testing.assert_array_equal(twice[:, 0], wanted + wanted)
        np.testing.assert_array_equal(twice[:, 1], wanted + np.float16(1))
    bits = x.view(np.uint32).astype(np.uint64)
    np.testing.assert_array_equal(short, (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)


def test_a_missing_barrier_shows() -> None:
    right = np.arange(128)[::-1]
    for order in range(4):
        out = np.array(call("selftest_reverse", "at(x), at(out), 1", order).split(), int)
        np.testing.assert_array_equal(out[:128], right)
    out = np.array(call("selftest_reverse", "at(x), at(out), 0").split(), int)
    assert set(out[:64]) == {-1}  # nothing was there yet
    np.testing.assert_array_equal(out[64:128], right[64:])


def test_what_is_overwritten_too_early_shows_in_some_order() -> None:
    results = {wait: {call("selftest_rotate", f"at(out) if out.put(range(128), x[:128]) else "
                           f"at(out), {wait}", order) for order in range(4)} for wait in (0, 1)}
    (right,) = results[1]
    np.testing.assert_array_equal(np.array(right.split(), int)[:128], np.roll(np.arange(128), -4))
    assert results[0] != results[1]


@pytest.mark.parametrize("mistake, message", [
    (2, "from: address .* is not a multiple of 16"),
    (3, "the destination of an asynchronous copy was written"),
])
def test_mistakes_with_asynchronous_copies(mistake: int, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(call("selftest_copy_async", f"at(x), at(out), {mistake}"))


def test_a_copy_that_is_not_waited_for_has_not_come() -> None:
    def halves(mistake: int) -> np.ndarray:
        out = call("selftest_copy_async", f"at(x), at(out), {mistake}")
        return np.array(out.split(), np.int32).view(np.uint16)[:32]

    np.testing.assert_array_equal(halves(0), np.arange(32) * 4)
    assert set(halves(1)) == {0xFFFF}


@pytest.mark.parametrize("mistake, message", [
    (0, "no thread can go on\n.*32 threads have ended\n.*32 threads wait at __syncthreads in"),
    (1, "threads meet at different barriers\n.*32 threads wait at __syncthreads in"),
    (2, "no thread can go on\n.*32 threads have ended\n.*32 threads wait at __shfl_xor_sync"),
    (3, "no thread can go on"),
    (4, "lane 1 gets a value of lane 0, which takes no part"),
    (5, "ldmatrix: the 16 bytes at .* are not in shared memory"),
])
def test_mistakes_that_end_the_program(mistake: int, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(call("selftest_diverge", f"at(out), {mistake}"))


def test_shared_memory_starts_as_no_number() -> None:
    out = np.array(call("selftest_diverge", "at(out), 7").split(), int)
    assert set(out[:64]) == {-1}


@pytest.mark.parametrize("function, arguments, message", [
    ("selftest_diverge", "at(out), 6", "heap-buffer-overflow"),
    ("selftest_diverge", "at(out), 8", "misaligned address"),
    ("selftest_touch", "100, 100, 200", "heap-buffer-overflow"),
    ("selftest_touch", "200, 100, 100", "heap-buffer-overflow"),
])
def test_sanitizers_see_into_kernels(function: str, arguments: str, message: str) -> None:
    try:
        build.environment(sanitize=True)
    except RuntimeError as missing:
        pytest.skip(str(missing))
    found = call(function, arguments, sanitize=True)
    assert message in found or "out of bounds" in found
    assert "selftest.cu" in found


def test_too_much_shared_memory_is_refused() -> None:
    found = call("selftest_touch", "49153, 0, 1")
    assert "49153 bytes of shared memory, 49152 are allowed" in found


def test_source_that_is_rewritten() -> None:
    text = (
        "/* a<<<b>>>(c) */\n"
        "k<d, (n > 1)><<<dim3(a, b), f<2>(3),\n 0>>>(x,\n y);\n"
        "extern __shared__ float2 s[];\n"
        "__shared__ __align__(16) a::b<1> t[n][2*m];\n"
    )
    assert build.rewrite(text, "k.cu", iter([5])) == (
        '#line 1 "k.cu"\n'
        "/* a<<<b>>>(c) */\n"
        '::cuda_emulation::make_launch("k", &k<d, (n > 1)>, dim3(a, b), f<2>(3),\n 0)(x,\n y);\n'
        "float2 * s = ::cuda_emulation::shared_array<float2>();\n"
        "typedef a::b<1> cuda_emulation_t[n][2*m]; auto & t = "
        "::cuda_emulation::shared_variable<cuda_emulation_t>(5, 16);\n"
    )
    with pytest.raises(ValueError, match="not understood"):
        build.rewrite("__shared__ int a, b;", "k.cu", iter([0]))
