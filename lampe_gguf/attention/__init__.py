"""What attention looks like beyond the window: its uncertainty and its pattern."""
