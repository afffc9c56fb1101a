"""A device that is not the CPU, on any machine: its tensors hold their numbers on the CPU, and mix as little.

What runs there runs on a GPU as far as devices go: an operation on tensors of both devices is an error here
too, and so is `numpy()` of one of its tensors. It says nothing about rounding, streams or speed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_any, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "elsewhere"
DEVICE = f"{NAME}:0"
aten = torch.ops.aten
# operations that take tensors of both devices on a GPU too
COPIES = {aten._to_copy, aten.copy_, aten.set_}
BETWEEN = COPIES | {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class Backend(_DummyBackendModule):
    """What torch asks of a device; it draws no random numbers of its own."""

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.zeros(1, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        pass


class There(Tensor):
    """A tensor of the other device; `held` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "There":
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
            requires_grad=held.requires_grad,
        )
        made.held = held
        return made

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError("can't convert a tensor of another device to numpy")
        return self.held.detach().numpy(force=True)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # as a file has it: on the CPU
        return self.held.detach().__reduce_ex__(protocol)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"There({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


class Machine(TorchDispatchMode):
    """Within it tensors can be made on the other device."""

    def __enter__(self) -> "Machine":
        # `torch.tensor(..., device=)` makes its tensor on the CPU first, so that this mode can move it
        self.lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(self.lifted)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


def _call(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    device = kwargs.get("device")
    wanted = None if device is None else torch.device(device).type
    there = tree_any(lambda one: isinstance(one, There), (args, kwargs))
    if not there and wanted != NAME:
        return func(*args, **kwargs)
    if there and func.overloadpacket not in BETWEEN and tree_any(_here, (args, kwargs)):
        raise RuntimeError(f"{func}: all tensors must be on the same device, but some are on the CPU")
    own = {**kwargs, "device": torch.device("cpu")} if wanted == NAME else kwargs
    held_args, held_own = tree_map(_held, (args, own))
    found = func(*held_args, **held_own)
    first = args[0] if args else None
    if wanted == "cpu" or (func.overloadpacket is aten.copy_ and not isinstance(first, There)):
        return first if func.overloadpacket is aten.copy_ else found
    wrapped = tree_map(lambda one: There(one) if type(one) is Tensor else one, found)
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _here(one: Any) -> bool:
    """Whether it is a tensor of the CPU that is not taken beside one of a GPU; a single number is."""
    return isinstance(one, Tensor) and not isinstance(one, There) and one.dim() > 0


def _held(one: Any) -> Any:
    return one.held if isinstance(one, There) else one


@contextmanager
def runs_there() -> Iterator[None]:
    """Within it runs with `trainer=cpu` train on the other device."""
    with pytest.MonkeyPatch.context() as patch, Machine():
        patch.setattr(pl.strategies.SingleDeviceStrategy, "root_device", torch.device(DEVICE))
        patch.setattr(pl.accelerators.CPUAccelerator, "setup_device", lambda self, device: None)
        yield


_setup_privateuseone_for_python_backend(NAME, Backend())
