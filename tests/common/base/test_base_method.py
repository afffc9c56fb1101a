"""How a method asks the one within it: which part, in which order, and what is refused."""

import ast
import inspect
import pkgutil
from functools import partial
from importlib import import_module
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import common.distillation
import papers
from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.method import TrainingMethod, beside, naming_inner

SGD = partial(torch.optim.SGD, lr=0.1)
PARTS = ("attach", "check_schedule", "start_epoch", "end_step", "evaluate", "deployed")
DATA: Any = None


class Noted(TrainingMethod):
    """Notes in which order it is asked; its network is the one it got, in one more `Sequential`."""

    notes: ClassVar[list[str]] = []

    def __init__(self, name: str, inner: TrainingMethod | None = None) -> None:
        super().__init__(optimizer=SGD, inner=inner)
        self.name = name

    def attach(self, student: nn.Module, make_model: Any, data: DataSet) -> nn.Module:
        return super().attach(nn.Sequential(student), make_model, data)

    def start_epoch(self, epoch: int) -> None:
        self.notes.append(f"epoch {self.name}")
        super().start_epoch(epoch)

    def end_step(self, student: nn.Module, done: float) -> None:
        super().end_step(student, done)
        self.notes.append(f"step {self.name}")

    def evaluate(self, student: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        return beside(super().evaluate(student, data, split), {f"test_{self.name}": 1.0, "test_both": 0.0})

    def deployed(self, student: nn.Module) -> nn.Module:
        self.notes.append(f"off {self.name}")
        found = super().deployed(student)
        assert isinstance(found, nn.Sequential)
        return found[0]


class Task:
    """The sum of the outputs."""

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> Tensor:
        return model(inputs).sum()


def chain(*names: str) -> Noted:
    method = Noted(names[-1])
    for name in reversed(names[:-1]):
        method = Noted(name, method)
    return method


def test_each_part_asks_the_methods_in_its_order() -> None:
    method = chain("a", "b", "c")
    Noted.notes.clear()
    method.start_epoch(3)
    method.end_step(nn.Identity(), 0.5)
    assert Noted.notes == ["epoch a", "epoch b", "epoch c", "step c", "step b", "step a"]
    assert [each.epoch for each in method.chain()] == [3, 3, 3]


def test_what_is_attached_from_the_outside_in_comes_off_again() -> None:
    student, method = nn.Linear(2, 1), chain("a", "b")
    whole = method.attach(student, lambda: student, DATA)
    assert str(whole) == str(nn.Sequential(nn.Sequential(student)))
    assert method.deployed(whole) is student


def test_a_chain_that_adds_nothing_has_the_tasks_loss_and_knows_the_task_and_the_length() -> None:
    student, inputs, task = nn.Linear(2, 1), torch.ones(3, 2), Task()
    method = chain("a", "b")
    method.prepare(task, 2.5)  # type: ignore[arg-type]
    assert method.loss(student, inputs, None) == task.loss(student, inputs, None)
    assert all(each.task is task and each.epochs == 2.5 for each in method.chain())


def test_metrics_of_one_name_are_both_kept() -> None:
    assert chain("a", "b").evaluate(nn.Identity(), DATA, "test") == {
        "test_a": 1.0,
        "test_both": 0.0,
        "test_b": 1.0,
        "inner_test_both": 0.0,
    }


def test_parameters_and_state_of_the_method_within_are_the_methods() -> None:
    method = chain("a", "b")
    assert method.inner is not None
    method.inner.translator = nn.Linear(2, 1)
    assert set(method.state_dict()) == {"inner.translator.weight", "inner.translator.bias"}
    assert len(list(method.parameters())) == 2


def test_two_methods_that_replace_the_student_are_refused() -> None:
    class Pruned(TrainingMethod):
        REPLACES_STUDENT = True

    plain = TrainingMethod(optimizer=SGD, inner=Pruned(optimizer=SGD))
    with pytest.raises(UserError, match=r"^method\.inner: Pruned and Pruned each put a network of their own"):
        Pruned(optimizer=SGD, inner=plain)


def test_an_optimizer_alone_is_no_inner_method() -> None:
    with pytest.raises(UserError, match=r"^method\.inner: is an optimizer alone \(valid: "):
        TrainingMethod(optimizer=SGD, inner=SGD)  # type: ignore[arg-type]


def test_errors_of_the_method_within_name_its_keys() -> None:
    with pytest.raises(UserError) as caught, naming_inner(), naming_inner():
        raise UserError("method.beta=-1: bad (valid: method.beta=1 with method=optimizer/sgd)")
    text = "method.inner.inner.beta=-1: bad (valid: method.inner.inner.beta=1 with method=optimizer/sgd)"
    assert str(caught.value) == text


def methods() -> list[type[TrainingMethod]]:
    """All methods of the project."""
    for package in (common.distillation, papers):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.ispkg and "TrainingMethod" in (inspect.getsource(import_module(found.name))):
                import_module(found.name)
    waiting, known = [TrainingMethod], []
    while waiting:
        subs = waiting.pop().__subclasses__()
        known += subs
        waiting += subs
    return [one for one in known if one.__module__.startswith(("common.", "papers."))]


def test_no_part_of_a_method_that_takes_another_forgets_it() -> None:
    taking = [one for one in methods() if {"inner", "parts"} & set(inspect.signature(one).parameters)]
    assert {"KnowledgeDistillation", "Snapshot", "Peers"} <= {one.__name__ for one in taking}
    for one in taking:
        for part in PARTS:
            if part in vars(one):
                tree = ast.parse(inspect.getsource(one))
                (body,) = (node for node in ast.walk(tree) if getattr(node, "name", "") == part)
                assert f"super().{part}(" in ast.unparse(body), f"{one.__name__}.{part}"
