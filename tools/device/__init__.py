"""The backend on other devices and instruction sets, and under sanitizers."""
