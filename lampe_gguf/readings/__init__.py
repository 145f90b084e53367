"""What a model has read, kept on disk: found by its tokens, loaded instead of read again."""
