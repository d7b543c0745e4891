"""Scorers: an image and its regions -> scores. The one protocol that training, evaluation, prediction and the app know."""
