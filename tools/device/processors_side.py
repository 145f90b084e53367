"""What processors.py runs on each processor: which variant is loaded, and what SmolLM2 writes.

Prints one line of JSON. Needs the wheel and lampe-gguf on the path. Tokens per second are of the
time that the processor computed, with one thread: what else runs on the machine counts little.
"""

from __future__ import annotations

import json
import sys
import time

from lampe_gguf import LampeConfig, LampeLlama
from lampe_gguf.backend.doctor import examine

# Half the prompt lies beyond the window, so that every region of LaMPE's map is in use.
WINDOW = 48
PROMPT = (
    "The harbour master wrote down every ship that came in that summer. In June there were "
    "eleven, most of them carrying timber from the north. In July there were nine, and in August "
    "only four, because the wind had turned. At the end of the year he counted them again, and "
    "the sum of all the ships of that summer was"
)
COUNT = 16


def main() -> None:
    if len(sys.argv) < 2:  # no model: what is loaded alone
        print(json.dumps({"variant": examine().variant, "tokens": [], "text": "", "reading": 0.0,
                          "writing": 0.0}))
        return
    config = LampeConfig(
        window=WINDOW, context_length=512, local_window=24, tail_window=4,
        max_mapping_length=40.0, slope=0.0, offset=80.0, length_step=16,
    ).validate()
    with LampeLlama(sys.argv[1], lampe=config, n_ctx=128, n_threads=1) as llm:
        prompt = llm.tokenize(PROMPT.encode())
        assert len(prompt) > WINDOW and llm.path == "fused", (len(prompt), llm.path)
        start = time.process_time()
        llm.eval(prompt)
        read = time.process_time()
        tokens: list[int] = []
        for _ in range(COUNT):
            tokens.append(int(llm.sample(temp=0.0)))
            llm.eval(tokens[-1:])
        wrote = time.process_time()
        text = llm.detokenize(tokens).decode("utf-8", "replace")
    print(json.dumps({
        "variant": examine().variant, "tokens": tokens, "text": text,
        "reading": len(prompt) / (read - start), "writing": COUNT / (wrote - read),
    }))


if __name__ == "__main__":
    main()
