#!/usr/bin/env python3
"""Programs that people use, each in an environment of its own, against `lampe-gguf serve`.

    python3 tools/device/server_clients.py [--model FILE]

LangChain's ChatOpenAI, the command line `llm`, and the `openai` package ask the same question about
a text of more than the window; what they get is shown. Environments are kept in the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from patched.places import CHECKOUT, cache_dir, venv_bin, venv_python
from patched.report import Failure, guarded, run

QUESTION = "In one sentence: what are the documents above about?"
SECONDS = 900  # for one program: it reads some 12,000 tokens, on a busy machine

LANGCHAIN = """
import sys
from langchain_openai import ChatOpenAI
model = ChatOpenAI(model="served", max_tokens=48, temperature=0)
print(model.invoke(sys.stdin.read()).content)
"""
OPENAI = """
import sys
from openai import OpenAI
answer = OpenAI().chat.completions.create(model="served", max_tokens=48, temperature=0,
    messages=[{"role": "user", "content": sys.stdin.read()}], stream=True)
print("".join(part.choices[0].delta.content or "" for part in answer if part.choices))
"""
# llm knows models by this file in its folder
LLM_MODELS = "- model_id: served\n  model_name: served\n  api_base: {url}\n"

CLIENTS = {
    "openai": (["openai"], ["{python}", "-c", OPENAI]),
    "langchain": (["langchain-openai"], ["{python}", "-c", LANGCHAIN]),
    "llm": (["llm"], ["{bin}/llm", "prompt", "-m", "served", "-o", "max_tokens", "48",
                      "-o", "temperature", "0", "--no-stream"]),
}


def environment(name: str, packages: list[str]) -> Path:
    """The folder of a program's own environment, made once."""
    venv = cache_dir() / "server-clients" / name
    stamp = venv / "made-of"
    wanted = " ".join(packages)
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        run([sys.executable, "-m", "venv", "--clear", venv], f"Making an environment for {name}")
        run([venv_bin(venv) / "python", "-m", "pip", "install", "--quiet", *packages],
            f"Installing {wanted}")
        stamp.write_text(wanted, encoding="utf-8")
    return venv


def text() -> str:
    """Documents of ours, of some 12,000 tokens together."""
    paths = [CHECKOUT / name for name in ("tools/README.md", "patches/README.md")]
    return "\n\n".join(path.read_text(encoding="utf-8") for path in paths)


def ask(name: str, url: str, prompt: str) -> dict[str, str]:
    """What one program says."""
    packages, command = CLIENTS[name]
    venv = environment(name, packages)
    home = cache_dir() / "server-clients" / f"{name}-home"
    home.mkdir(parents=True, exist_ok=True)
    (home / "extra-openai-models.yaml").write_text(LLM_MODELS.format(url=url), encoding="utf-8")
    env = {**os.environ, "OPENAI_BASE_URL": url, "OPENAI_API_BASE": url, "OPENAI_API_KEY": "none",
           "LLM_USER_PATH": str(home)}
    places = {"python": str(venv_bin(venv) / "python"), "bin": str(venv_bin(venv))}
    parts = [part if part in (OPENAI, LANGCHAIN) else part.format(**places) for part in command]
    done = subprocess.run(parts, input=prompt, capture_output=True, text=True, env=env,
                          timeout=SECONDS)
    said = done.stdout.strip()
    if done.returncode or not said:
        raise Failure(f"{name}: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return {"client": name, "said": said}


def main() -> int:
    """Serve, and let every program ask; 1 where one of them gets nothing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="FILE", help="instead of SmolLM2")
    parser.add_argument("--only", choices=CLIENTS, action="append")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model = options.model or next(venv_python().parents[1].rglob("SmolLM2*.gguf"), None)
    if model is None:
        raise Failure("SmolLM2 is not there; run 'python3 tools/bootstrap.py setup'.")
    prompt = f"{text()}\n\n{QUESTION}"
    command = [str(venv_bin() / "lampe-gguf"), "serve", str(model), "--port", "0",
               "--parallel", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            line = next((line for line in server.stdout if "OPENAI_BASE_URL=" in line), None)
            if line is None:
                raise Failure("the server did not start; its words are above.")
            url = line.partition("OPENAI_BASE_URL=")[2].split()[0]
            answers = [ask(name, url, prompt) for name in options.only or CLIENTS]
        finally:
            server.terminate()
    if options.json:
        print(json.dumps(answers, indent=2))
    else:
        print(*(f"{each['client']:<10} {each['said']}" for each in answers), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
