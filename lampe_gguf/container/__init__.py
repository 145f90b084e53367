"""GGUF files as bytes: read, written, copied, split, and put in place whole or not at all."""
