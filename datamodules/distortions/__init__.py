"""Distortions: the six types of SEAGULL-100w, twenty settings each (five grades of severity in four variants)."""
