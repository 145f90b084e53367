"""Find a model's own LaMPE constants (method: section 1, how the constants come about)."""
