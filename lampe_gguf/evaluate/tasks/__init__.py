"""Tasks that ask about a long text: made here from a seed, or read from published files."""
