"""Networks as shapes alone, to count or check them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# what layers draw their first weights by: on the meta device PyTorch goes through each in Python, for nothing
DRAWS = {Tensor.normal_, Tensor.uniform_}


class _Undrawn(TorchFunctionMode):
    """Leaves a tensor without numbers as it is where it would be filled at random."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in DRAWS and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def weightless() -> Iterator[None]:
    """What is built within has tensors on the meta device: sizes without numbers, and without their memory.

    It takes less than half the time that PyTorch's own `torch.device("meta")` takes for a ResNet.
    """
    with torch.device("meta"), _Undrawn():
        yield
