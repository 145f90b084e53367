"""python -m lampe_gguf.cli"""

from . import run

run()
