"""Experiments: `schema.py` says what a configuration may hold, the YAML files beside it are the presets."""
