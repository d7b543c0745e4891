import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from components import weights


def saved(path, **tensors):
    save_file(tensors, path)
    return str(path)


def test_half_precision_is_upcast(tmp_path):
    layer = nn.Linear(2, 1)
    file = saved(tmp_path / "w.safetensors", weight=torch.tensor([[1.5, -2.0]]).half(), bias=torch.tensor([0.25]).half())
    weights.load_weights(layer, file)
    assert layer.weight.dtype == torch.float32
    assert layer(torch.tensor([[2.0, 1.0]])).item() == 1.25


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.zeros(1, 2)}, "does not fit Linear: 1 missing: bias. Choose"),
        ({"weight": torch.zeros(1, 2), "bias": torch.zeros(1), "scale": torch.zeros(1)}, "1 unexpected: scale"),
        ({"weight": torch.zeros(1, 3), "bias": torch.zeros(1)}, r"1 of another shape: weight \(1, 3\) instead of \(1, 2\)"),
    ],
)
def test_every_key_must_fit(tmp_path, tensors, message):
    layer = nn.Linear(2, 1)
    before = layer.weight.clone()
    with pytest.raises(ValueError, match=message):
        weights.load_weights(layer, saved(tmp_path / "w.safetensors", **tensors))
    assert torch.equal(layer.weight, before)


def test_relative_paths_are_looked_up_here_then_beside_the_repository(tmp_path, monkeypatch):
    (tmp_path / "root").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(weights, "ROOT", tmp_path / "root")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(FileNotFoundError, match=r"here/w.safetensors or .*root/w.safetensors"):
        weights.find_file("w.safetensors")
    (tmp_path / "root/w.safetensors").touch()
    assert weights.find_file("w.safetensors").resolve() == tmp_path / "root/w.safetensors"
    (tmp_path / "here/w.safetensors").touch()
    assert weights.find_file("w.safetensors").resolve() == tmp_path / "here/w.safetensors"


def test_an_absolute_path_that_is_not_there_is_named_once(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"no weights at {tmp_path}/w.safetensors$"):
        weights.find_file(str(tmp_path / "w.safetensors"))


def test_other_formats_are_refused():
    with pytest.raises(ValueError, match=r"got 'w.pth', allowed are .* \.safetensors file; save other formats again"):
        weights.check_source("w.pth")
