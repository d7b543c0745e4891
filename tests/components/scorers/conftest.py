"""pyiqa is not installed: the contract is kept with a stand-in."""

from tests.pyiqa_stand_in import pyiqa_measures

__all__ = ["pyiqa_measures"]
