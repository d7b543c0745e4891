"""Checkpoints as their authors released them: their names to ours, and back."""
