"""What one file's model is: its description, its architecture, its LaMPE metadata and presets."""
