"""What a pass needs is counted without memory: closed forms, and what the allocator says of every vision encoder."""

import gc

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from components.footprint import working_bytes
from components.vision_encoders.base import VISION_ENCODERS


def test_what_lives_at_once_is_counted():
    """Two layers' outputs at a time, of 3 rows of float32; weights, buffers, the input and views are not counted."""
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Unflatten(1, (2, 4)), nn.Flatten(), nn.Linear(8, 2), nn.BatchNorm1d(2)).eval()
    assert working_bytes(net, (3, 4)) == 3 * (8 + 8) * 4
    assert working_bytes(nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True)), (3, 4)) == 3 * 8 * 4
    assert working_bytes(nn.Identity(), (3, 4)) == 0


def test_half_precision_takes_half():
    assert working_bytes(nn.Linear(4, 8).bfloat16(), (3, 4)) == 3 * 8 * 2


def test_the_net_itself_is_left_as_it_was():
    """It is not run, also if it is compiled, and its statistics stay."""
    net, seen = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)), []
    before = {name: x.clone() for name, x in net.state_dict().items()}

    def backend(graph, examples):
        seen.append(graph)
        return graph

    net.compile(backend=backend)
    assert working_bytes(net, (3, 4)) > 0
    assert not seen
    assert all(type(x) is type(net.state_dict()[name]) and torch.equal(x, net.state_dict()[name]) for name, x in before.items())
    net(torch.zeros(3, 4))
    assert seen


def allocated(work):
    """The highest sum of the allocator's events during `work`, bytes."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = sorted((e.start_ns(), e.nbytes()) for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]")
    live = peak = 0
    for _, size in events:
        live += size
        peak = max(peak, live)
    return peak


@pytest.mark.parametrize("name", VISION_ENCODERS.names())
def test_it_is_what_an_encoder_takes(name):
    plugin = VISION_ENCODERS.get(name)
    encoder = plugin(**plugin.tiny()).eval()
    shape = (4, 3, encoder.preprocess.size, encoder.preprocess.size)
    images = torch.randn(shape)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # kernels may hold something for each
    with torch.no_grad():
        encoder(images)
        taken = allocated(lambda: encoder(images))
    torch.set_num_threads(threads)
    assert taken / 1.5 < working_bytes(encoder, shape) < 1.5 * taken  # which kernels run is the processor's choice
    assert working_bytes(encoder, shape) == pytest.approx(4 * working_bytes(encoder, (1, *shape[1:])), rel=0.1)
