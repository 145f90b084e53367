"""From documents and a question to an answer."""
