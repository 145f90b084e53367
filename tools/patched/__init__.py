"""How the patched llama-cpp-python is fetched, patched, built and packed.

Plain standard library: these modules run before the virtual environment exists.
"""
