"""What a user did not do wrong in code ends in a line."""

import atexit
import gc
import importlib

import pytest
import torch

from lightning_modules.entry import run_entry


@pytest.mark.parametrize(
    ("entry", "line", "told"),
    [
        ("predict", ["m", "a.png", "--overlai", "x.png"], "unrecognized arguments: --overlai. Did you mean --overlay?"),
        ("prepare", ["indx", "a", "b"], "Did you mean index?"),
        ("prepare", ["save", "a", "b", "--ovrwrite"], "unrecognized arguments: --ovrwrite. Did you mean --overwrite?"),
        ("eval", ["outputs/a", "--splts", "x"], "unrecognized arguments: --splts. Did you mean --splits?"),
        ("train", ["quickstart", "--pln"], "unrecognized arguments: --pln. Did you mean --plan?"),
        ("app", ["m", "--prt", "80"], "unrecognized arguments: --prt. Did you mean --port?"),
        ("app", ["m", "--xyzzyx"], "unrecognized arguments: --xyzzyx\n"),
        ("app", ["m", "--accelerator", "gpus"], "Did you mean gpu?"),
    ],
)
def test_what_was_probably_meant_is_said(entry, line, told, capsys):
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(entry).main(line)
    assert told in capsys.readouterr().err


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
