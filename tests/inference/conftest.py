"""pyiqa is not installed: what is saved is saved with a stand-in."""

from tests.pyiqa_stand_in import pyiqa_measures

__all__ = ["pyiqa_measures"]
