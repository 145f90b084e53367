"""What elsewhere.py runs to try LangChain, LlamaIndex and Haystack with the installed wheel.

Each loads the converted model with its own class for llama-cpp-python and writes a few tokens;
LlamaIndex's look at the version is called as well. Prints a line for each; exits with 1 where one
fails.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

PROMPT = "The capital of France is"


def langchain(model: str) -> str:
    from langchain_community.llms import LlamaCpp

    options: dict[str, Any] = {"n_ctx": 512, "max_tokens": 8, "temperature": 0, "verbose": False}
    return str(LlamaCpp(model_path=model, **options).invoke(PROMPT))


def llama_index(model: str) -> str:
    from llama_index.llms.llama_cpp import LlamaCPP

    # takes the version apart into three parts, where no model is named
    LlamaCPP._get_model_path_for_version(None)
    llm = LlamaCPP(model_path=model, context_window=512, max_new_tokens=8, temperature=0.0,
                   verbose=False)
    return str(llm.complete(PROMPT))


def haystack(model: str) -> str:
    from haystack_integrations.components.generators.llama_cpp import LlamaCppChatGenerator

    generator = LlamaCppChatGenerator(model=model, n_ctx=512, n_batch=128,
                                      model_kwargs={"verbose": False},
                                      generation_kwargs={"max_tokens": 8, "temperature": 0.0})
    generator.warm_up()
    return str(generator.run(PROMPT)["replies"][0].text)


TRIED: dict[str, tuple[str, Callable[[str], str]]] = {
    "LangChain": ("langchain-community", langchain),
    "LlamaIndex": ("llama-index-llms-llama-cpp", llama_index),
    "Haystack": ("llama-cpp-haystack", haystack),
}


def main() -> int:
    """Try all of them on the model whose path is given."""
    failed = False
    print(f"llama-cpp-python {metadata.version('llama-cpp-python')}")
    for name, (package, call) in TRIED.items():
        try:
            said = repr(call(sys.argv[1]).strip())
        except Exception as error:  # whatever it is, the next one is tried
            said, failed = f"failed: {type(error).__name__}: {error}", True
        print(f"{name} ({package} {metadata.version(package)}): {said}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
