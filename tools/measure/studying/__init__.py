"""The study's parts: what is kept, what is measured, and what is made of it."""
