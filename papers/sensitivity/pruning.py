"""What all methods share that prune single weights: masks that nothing undoes, and what is measured."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.limits import require
from common.base.method import MethodParts, Pass, beside
from common.training.loss_terms import LossTerms
from papers.sensitivity.sparsity import is_weight, sparsity

Named = Mapping[str, Tensor]
Chosen = Literal["weights", "all"]


class Tensors(nn.Module):
    """Tensors by name that lie in the checkpoint; those of another network of the same form take their place.

    Args:
        tensors: by names of parameters, which may hold dots; they are copied.
    """

    def __init__(self, tensors: Named) -> None:
        super().__init__()
        self.names = list(tensors)
        for index, tensor in enumerate(tensors.values()):
            self.register_buffer(f"tensor{index}", tensor.detach().clone())

    def __getitem__(self, name: str) -> Tensor:
        return self.get_buffer(f"tensor{self.names.index(name)}")

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors, in their order."""
        for index, name in enumerate(self.names):
            yield name, self.get_buffer(f"tensor{index}")

    def copy_(self, tensors: Named) -> None:
        """Take the values of other tensors of the same names."""
        for name, tensor in self.items():
            tensor.copy_(tensors[name])


class Masks(Tensors):
    """Which weights are kept, as bool of each weight's shape; all at first."""

    def __init__(self, parameters: Named) -> None:
        super().__init__({name: torch.ones_like(p, dtype=torch.bool) for name, p in parameters.items()})

    def apply_to(self, parameters: Named) -> None:
        """Make zero what is not kept; whatever stands there, NaN too."""
        for name, mask in self.items():
            if not bool(mask.all()):
                parameters[name].masked_fill_(~mask, 0)

    def put(self, masks: Named, because: str) -> None:
        """Take other masks, unless a layer would lose all its weights.

        Args:
            masks: bool, by name.
            because: what the message begins with, as `method.threshold=3`.

        Raises:
            UserError: names that layer; the masks stay as they were.
        """
        for name, mask in masks.items():
            if is_weight(mask) and not bool(mask.any()):
                raise UserError(f"{because}: {name} would lose all its weights (valid: what leaves it some)")
        self.copy_(masks)


class WeightPruning(LossTerms):
    """A method that makes weights zero while the network is trained, and keeps them so.

    The masks are applied after every step of the optimizer, so that neither momentum nor weight decay brings
    a weight back. They, and what else a method keeps, lie in the checkpoint. Methods differ in `after_step`.

    Args:
        begin: the share of the run before the method does anything, from 0 to below 1: training alone.
        parameters: what is pruned: "weights" of two or more dimensions, or "all", biases and scales of
            normalisation too. Compression counts weights alone.
        parts: see `MethodParts`.

    Attributes:
        done: the share of the run that is made.
        masks: of the chosen parameters.

    Raises:
        UserError: a share out of range, an optimizer that averages its iterates.
    """

    masks: Masks

    def __init__(self, *, begin: float, parameters: Chosen, **parts: Unpack[MethodParts]) -> None:
        super().__init__(**parts)
        require_share(begin=begin)
        if hasattr(getattr(self.optimizer, "func", self.optimizer), "averaged"):
            raise UserError(
                "method.optimizer: averages its iterates, which would bring pruned weights back "
                "(valid: one that does not, as sgd or adam)"
            )
        self.begin, self.parameters_chosen = begin, parameters
        self.done = 0.0

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The student as it is, and masks that keep all of it."""
        student = super().attach(student, make_model, data)
        self.data = data
        self.masks = Masks(self.chosen(student))
        return student

    def fit_of(self, seen: Pass) -> Tensor:
        """`inner_fit_of`: nothing is added to the loss, unless a method does."""
        return self.inner_fit_of(seen)

    def chosen(self, student: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters that are pruned, by name."""
        return {
            name: p
            for name, p in student.named_parameters()
            if p.requires_grad and (self.parameters_chosen == "all" or is_weight(p))
        }

    @property
    def begun(self) -> bool:
        """Whether the method does something in the step under way."""
        return self.done >= self.begin

    @torch.no_grad()
    def end_step(self, student: nn.Module, done: float) -> None:
        """`after_step`, and the masks on what came out of it."""
        super().end_step(student, done)
        parameters = self.chosen(student)
        if done >= self.begin:
            self.after_step(student, parameters, done)
        self.masks.apply_to(parameters)
        self.done = done

    @abstractmethod
    def after_step(self, student: nn.Module, parameters: dict[str, nn.Parameter], done: float) -> None:
        """Change the masks, or the parameters that the optimizer has just stepped.

        Args:
            student: the network.
            parameters: its chosen ones.
            done: the share of the run that is made; `self.done` is that before the step.
        """

    def evaluate(self, student: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """`sparsity` of the network with the test split, with the validation split the number of weights."""
        inner = super().evaluate(student, data, split)
        if split == "test":
            return beside(inner, sparsity(student))
        own = {"nonzero": sparsity(student, files=False)["nonzero"]} if split == "validation" else {}
        return beside(inner, own)

    def get_extra_state(self) -> dict[str, Any]:
        """What the checkpoint holds beside tensors: `done`, and what a method adds."""
        return {"done": self.done}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put back what `get_extra_state` gave."""
        self.done = state["done"]


def cut(parameters: Named, masks: Masks, threshold: float | Named) -> dict[str, Tensor]:
    """Masks that keep of what `masks` keep the weights with |w| >= T.

    Args:
        parameters: w, by name.
        masks: the present ones.
        threshold: T, one for all or a tensor for each.

    Raises:
        UserError: a weight is not finite: nothing is cut by it.
    """
    require_finite(parameters)
    return {
        name: masks[name]
        & (p.abs() >= (threshold if isinstance(threshold, int | float) else threshold[name]))
        for name, p in parameters.items()
    }


def require_finite(parameters: Named) -> None:
    """Refuse to choose among weights that are not finite: the masks stay as they were.

    Raises:
        UserError: names the first such tensor.
    """
    for name, p in parameters.items():
        if not bool(p.isfinite().all()):
            raise UserError(
                f"{name}: its weights are not finite, and nothing is pruned by them "
                "(valid: a method.optimizer.lr at which the training stays finite)"
            )


def times(done: float, begin: float, every: float) -> int:
    """How often something has happened that happens each `every` share of a run after `begin`.

    A step may end a rounding error before its share; so much is added.
    """
    return max(0, int((done - begin) / every + 1e-9))


def require_share(**values: float) -> None:
    """Refuse a share of the run that is not from 0 to below 1.

    Raises:
        UserError: see above.
    """
    require("from 0 to 1", "method", **values)
    for name, value in values.items():
        if value == 1:
            raise UserError(f"method.{name}={value}: must be a share of the run below 1")
