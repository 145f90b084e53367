"""Perplexity, and tasks with answers, far beyond the training window."""
