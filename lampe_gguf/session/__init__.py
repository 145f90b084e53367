"""A model in threads of its own, for programs with windows."""
