"""Readouts: how a language model is taught an answer, and how the answer becomes a score."""
