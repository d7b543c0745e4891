"""What a user did not do wrong in code ends in a line."""

import pytest
import torch

from lightning_modules.entry import run_entry


def test_a_full_gpu_is_one_line():
    def full():
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(SystemExit, match=r"^error: CUDA out of memory\.\n"):
        run_entry(full)
