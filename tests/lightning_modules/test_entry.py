"""What a user did not do wrong in code ends in a line."""

import atexit
import gc

import pytest
import torch

from lightning_modules.entry import run_entry


def test_a_full_gpu_is_one_line():
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(SystemExit, match=r"^error: CUDA out of memory\.\n"):
        run_entry(full)


def test_the_end_of_a_program_is_not_spent_on_garbage(monkeypatch):
    """Python would look through all of its objects, which are hundreds of thousands."""
    registered = []
    monkeypatch.setattr(atexit, "register", registered.append)
    run_entry(lambda: None)
    assert gc.freeze in registered
