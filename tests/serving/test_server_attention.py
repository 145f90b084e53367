"""What `lampe-gguf serve` says of the attention that runs is what its server does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from serving_side import require_server, served

from lampe_gguf.cli.serve import attention_line
from lampe_gguf.errors import LampeError
from lampe_gguf.serving import log

REASON = "Other0 has no fused attention with LaMPE for this model"
SAYS = "0.00.050.123 W choose_path: the reason: it is composed of other operators"
DEVICE = ("--device", "Other0")
TENSORS = ("--device", "Other0,Other1", "--gpu-layers", "99", "--split-mode", "tensor")
LOADED = "0.00.061.540 I srv  llama_server: model loaded"


@pytest.mark.parametrize("lines, path", [
    ([LOADED], ("fused", "")),
    ([SAYS, LOADED], ("portable", "the reason")),
    ([SAYS], ("portable", "the reason")),  # --log-verbosity 2
    ([], ("", "")),  # --log-disable
    ([LOADED, SAYS], ("fused", "")),  # what another model says later, one that drafts
])
def test_the_path_is_read_in_the_log(lines: list[str], path: tuple[str, str]) -> None:
    attention = log.Attention()
    for line in lines:
        attention.read(line)
    assert attention.path(0.01) == path


def test_a_sentence_for_each() -> None:
    assert attention_line("fused", "", use_lampe=True) == "attention fused"
    assert attention_line("portable", "no GPU", use_lampe=True) == "attention portable (no GPU)"
    assert attention_line("fused", "", use_lampe=False) == "attention plain RoPE, LaMPE off"
    assert attention_line("", "", use_lampe=True) == ""


@pytest.mark.parametrize("extra, path", [
    ((), ("fused", "")),
    ((*DEVICE, "--gpu-layers", "99"), ("portable", REASON)),
    ((*DEVICE, "--gpu-layers", "99", "--no-kv-offload"), ("fused", "")),
])
def test_a_server_says_what_it_runs(
    tiny: Callable[..., Path], other_device: Path, monkeypatch: pytest.MonkeyPatch,
    extra: tuple[str, ...], path: tuple[str, str],
) -> None:
    require_server()
    monkeypatch.setenv("GGML_BACKEND_PATH", os.fspath(other_device))
    with served(tiny(), *extra, ctx=256) as client:
        assert client.attention.path(10) == path


def test_tensors_split_across_devices(
    tiny: Callable[..., Path], other_device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_server()
    monkeypatch.setenv("GGML_BACKEND_PATH", os.fspath(other_device))
    monkeypatch.setenv("OTHER_DEVICES", "2")
    model, prompt = tiny(n_head_kv=4, n_ff=256), "a text that is longer than the window of 32"
    with pytest.raises(LampeError, match="one of the devices has no fused attention with LaMPE"):
        with served(model, *TENSORS, ctx=256):
            pass
    monkeypatch.setenv("OTHER_DEVICE_FUSED", "Other0,Other1")
    with served(model, *TENSORS, ctx=256) as client:
        assert client.attention.path(10) == ("fused", "")
        split = client.complete(prompt)["tokens"]
    with served(model, ctx=256) as client:
        assert client.complete(prompt)["tokens"] == split
