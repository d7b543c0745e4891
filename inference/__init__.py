"""Trained scorers at work on many images."""
