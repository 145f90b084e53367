"""The patched llama.cpp from Python: everything that touches ctypes."""
