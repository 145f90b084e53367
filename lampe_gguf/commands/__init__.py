"""The commands of `lampe-gguf`, a module each, loaded when it is run."""
