"""convert with a Hugging Face checkpoint folder."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lampe_gguf.backend.llama import LampeLlama
from lampe_gguf.container.reader import GGUFFile
from lampe_gguf.errors import LampeError, UsageError
from lampe_gguf.huggingface.checkpoint import DIRECT, QUANTS, as_gguf, find_converter, is_checkpoint
from lampe_gguf.model.metadata import read

PROGRAM = [sys.executable, "-m", "lampe_gguf.cli.main", "convert"]


def program(*arguments):
    return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Looks like a checkpoint and is none."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps({"architectures": ["NoSuchModel"]}))
    return made


def test_the_pinned_source_has_the_converter():
    assert find_converter().is_file()


def test_no_source_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("LAMPE_GGUF_CACHE", str(tmp_path))
    with pytest.raises(LampeError, match="tools/backend.py build"):
        find_converter()


def test_every_type_is_one_of_the_backends():
    import llama_cpp

    for kind in QUANTS:
        if kind not in DIRECT:
            assert hasattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")


def test_what_the_converter_cannot_read_leaves_nothing(folder):
    done = program(folder)
    assert done.returncode == 1
    errors = done.stderr.splitlines()
    assert errors[-1].startswith("error: llama.cpp's converter")
    assert "Traceback" not in done.stderr
    assert [x.name for x in folder.parent.iterdir()] == ["model"]


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    assert not is_checkpoint(tmp_path)
    done = program(tmp_path)
    assert done.returncode == 2 and "without config.json" in done.stderr


def test_quantize_is_for_checkpoints(tiny):
    done = program(tiny(), "--quantize", "q8_0")
    assert done.returncode == 2 and "checkpoint folders" in done.stderr


def test_an_unknown_type_is_refused(folder):
    assert program(folder, "--quantize", "q9").returncode == 2
    with pytest.raises(UsageError, match="q4_k_m"), as_gguf(folder, "q9", folder):
        pass


def test_an_output_that_exists_is_refused_before_the_work(folder, tmp_path):
    (tmp_path / "out.gguf").write_text("mine")
    done = program(folder, tmp_path / "out.gguf")
    assert done.returncode == 2 and "--force" in done.stderr
    assert (tmp_path / "out.gguf").read_text() == "mine"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny random Llama as transformers saves it."""
    torch = pytest.importorskip("torch", reason="the extra hf is not installed")
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
    sentencepiece = pytest.importorskip("sentencepiece", reason="the extra hf is not installed")
    place = tmp_path_factory.mktemp("checkpoint") / "tiny"
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=256, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(place)
    text = place / "text.txt"
    text.write_text("\n".join(f"{i} bottles of beer on the wall" for i in range(500)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(place / "tokenizer"), vocab_size=300,
        byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    )
    text.unlink()
    return place


@pytest.mark.parametrize("kind", [None, "q8_0", "q4_k_m"])
def test_a_checkpoint_becomes_a_model_that_runs(checkpoint, kind, tmp_path):
    out = tmp_path / "out.gguf"
    options = [] if kind is None else ["--quantize", kind]
    done = program(checkpoint, out, *options)
    assert done.returncode == 0, done.stderr
    with GGUFFile(out) as file:
        config = read(file, "llama")
    assert config is not None and config.window == 64
    assert [x.name for x in tmp_path.iterdir()] == ["out.gguf"]
    llm = LampeLlama(out, n_ctx=256)
    llm.eval(llm.tokenize(b"bottles of beer " * 12))
    assert llm.path == "fused" and llm.n_tokens > 64
    llm.close()
    sizes = {None: 2.0, "q8_0": 1.1, "q4_k_m": 0.7}  # MB, at most
    assert out.stat().st_size < 1e6 * sizes[kind]


def test_no_place_for_the_file_is_said(folder, tmp_path):
    done = program(folder, tmp_path / "nowhere" / "out.gguf")
    assert done.returncode == 1 and "cannot make files in" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_termination_signal_leaves_nothing_behind(folder, tmp_path, monkeypatch):
    place = tmp_path / "place"
    place.mkdir()
    # in place of the converter: something that takes its time
    slow = tmp_path / "trees" / "x" / "src" / "vendor" / "llama.cpp"
    slow.mkdir(parents=True)
    (slow / "convert_hf_to_gguf.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setenv("LAMPE_GGUF_CACHE", str(tmp_path))
    child = subprocess.Popen([*PROGRAM, str(folder), str(place / "out.gguf")],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 30
    while not list(place.iterdir()) and time.monotonic() < until:
        time.sleep(0.05)
    assert list(place.iterdir())
    child.terminate()
    child.communicate(timeout=30)
    assert not list(place.iterdir())
