"""The paper's method in NumPy: positions, schedule by length, configurations, a reference."""
