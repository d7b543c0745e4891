"""What a network makes while it works, found by running it without memory."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def working_bytes(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Bytes of all tensors at the worst moment of a pass without gradients over one input, beside that input and the weights.

    A copy passes whose tensors have shapes and no storage (torch's FakeTensor): it takes no memory, and `net` may be at work meanwhile, and
    may be compiled. What a kernel takes within itself is no tensor and not counted.

    Args:
        net: takes a tensor of `shape`, of the type and on the device of its weights.
    """
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    stand_ins: dict[int, Any] = {id(x): fakes.from_tensor(x) for x in (*net.parameters(), *net.buffers())}
    ghost: nn.Module = copy.deepcopy(net, stand_ins)
    with torch.no_grad(), fakes:
        first = next(net.parameters(), None)
        given = torch.zeros(shape) if first is None else torch.zeros(shape, device=first.device, dtype=first.dtype)
        with _Tally((given, *ghost.parameters(), *ghost.buffers())) as tally:
            ghost(given)
    return tally.most


class _Tally(TorchDispatchMode):
    """Bytes of the storages that live, at the worst moment.

    Args:
        outside: tensors that are not counted.
    """

    def __init__(self, outside: Iterable[Tensor]) -> None:
        super().__init__()
        self.most = self._now = 0
        self._known: dict[int, Any] = {x.untyped_storage()._cdata: x.untyped_storage() for x in outside}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self._see(x.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known[key] = weakref.ref(storage, lambda _: self._gone(key, size))
            self._now += size
            self.most = max(self.most, self._now)

    def _gone(self, key: int, size: int) -> None:
        del self._known[key]
        self._now -= size
