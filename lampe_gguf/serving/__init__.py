"""llama-server for a model: what memory it takes, its arguments, and the process itself."""
