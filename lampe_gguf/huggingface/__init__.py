"""Checkpoints of Hugging Face: to a GGUF, and LaMPE in transformers itself."""
