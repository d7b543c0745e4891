"""Conductors: Lightning hooks around the components, and no mathematics."""
