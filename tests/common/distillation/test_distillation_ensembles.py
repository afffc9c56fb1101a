"""Independent nets, mutual learning and snapshots against loops written by hand."""

from copy import deepcopy
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.distillation.ensembles import Independent, Peers, Snapshot, ensemble_metrics
from common.distillation.mutual import Mutual, mutual_divergence
from common.models.mlp import MLP
from common.training.schedules import constant, cosine, cyclic_cosine, multistep
from common.training.tasks import Classification

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
CLASSES = 4


class Data:
    """Nine examples in batches of four."""

    evaluation_batch = 4
    shape = (6,)

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(9, 6, generator=generator, dtype=torch.float64)
        self.targets = torch.randint(CLASSES, (9,), generator=generator)

    def size(self, split: str) -> int:
        return 9

    def batches(self, split: str, size: int) -> Any:
        return zip(self.inputs.split(size), self.targets.split(size), strict=True)


def make_model() -> nn.Module:
    return MLP(shape=(6,), classes=CLASSES, hidden=[5], activation="relu").double()


def attached(method: Any) -> tuple[Any, nn.Module]:
    torch.manual_seed(1)
    method.task = Classification(CLASSES)
    student = make_model()
    return method, method.attach(student, make_model, Data())


def steps(method: Any, student: nn.Module, count: int) -> None:
    parameters = [*student.parameters(), *(p for p in method.parameters() if p.requires_grad)]
    optimizer = method.optimizer(parameters)
    data = Data()
    for step in range(count):
        optimizer.zero_grad()
        method.loss(student, data.inputs, data.targets).backward()
        optimizer.step()
        method.end_step(student, (step + 1) / count)


def equal_states(one: nn.Module, other: nn.Module) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-12, atol=1e-14)


def test_independent_nets_end_as_if_each_were_trained_alone() -> None:
    method, student = attached(Independent(optimizer=SGD, nets=3))
    alone = [deepcopy(net) for net in method.networks(student)]
    assert not torch.equal(*(next(net.parameters()) for net in alone[:2]))
    steps(method, student, 5)
    data = Data()
    for net, trained in zip(alone, method.networks(student), strict=True):
        optimizer = SGD(net.parameters())
        for _ in range(5):
            optimizer.zero_grad()
            functional.cross_entropy(net(data.inputs), data.targets).backward()
            optimizer.step()
        equal_states(net, trained)


@pytest.mark.parametrize("nets", [1, 2, 3])
def test_mutual_learning_is_a_simultaneous_step_of_as_many_optimizers(nets: int) -> None:
    method, student = attached(Mutual(optimizer=SGD, nets=nets))
    copies = [deepcopy(net) for net in method.networks(student)]
    optimizers = [SGD(net.parameters()) for net in copies]
    data = Data()
    steps(method, student, 4)
    for _ in range(4):
        p = [functional.softmax(net(data.inputs), dim=1).detach() for net in copies]
        for i, (net, optimizer) in enumerate(zip(copies, optimizers, strict=True)):
            optimizer.zero_grad()
            log_p = functional.log_softmax(net(data.inputs), dim=1)
            loss = functional.nll_loss(log_p, data.targets)
            for j in range(nets):
                if j != i:
                    loss = loss + (p[j] * (p[j].log() - log_p)).sum(1).mean() / (nets - 1)
            loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    for net, trained in zip(copies, method.networks(student), strict=True):
        for name, value in net.state_dict().items():
            torch.testing.assert_close(value, trained.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_equal_nets_have_no_divergence_and_no_gradient_of_it() -> None:
    logits = torch.randn(5, 1, CLASSES, dtype=torch.float64).repeat(1, 3, 1).requires_grad_()
    divergence = mutual_divergence(logits)
    divergence.backward()
    assert divergence.item() == pytest.approx(0, abs=1e-15)
    assert logits.grad is not None and logits.grad.abs().max() < 1e-15


@pytest.mark.parametrize("total", [10, 13, 97, 3])
def test_snapshots_are_the_student_at_the_ends_of_the_schedules_cycles(total: int) -> None:
    cycles = 5
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = cyclic_cosine(optimizer, total, 1, cycles)
    method, student = attached(Snapshot(optimizer=SGD, snapshots=cycles))
    rates, states, taken = [], [], []
    for step in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        with torch.no_grad():
            next(student.parameters()).fill_(step)
        optimizer.step()
        schedule.after_step()
        method.end_step(student, (step + 1) / total)
        states.append(step)
        taken.append(method.taken)
    ends = [step for step in range(total) if step == total - 1 or rates[step + 1] > rates[step]]
    kept = [int(next(net.parameters()).flatten()[0]) for net in method.kept]
    if total >= cycles:
        assert kept == ends
    assert taken[-1] == cycles
    assert kept[-1] == total - 1
    assert rates[0] == 1.0
    assert all(not p.requires_grad for p in method.parameters())


def test_a_snapshot_ensemble_averages_the_snapshots_probabilities_and_survives_a_checkpoint() -> None:
    method, student = attached(Snapshot(optimizer=SGD, snapshots=3))
    data: Any = Data()
    assert method.evaluate(student, data, "test")["test_branch_disagreement"] == 0
    steps(method, student, 6)
    scores = sum(functional.softmax(net(data.inputs), dim=1) for net in method.kept)
    assert isinstance(scores, Tensor)
    error = 100 * (scores.argmax(1) != data.targets).double().mean().item()
    found = method.evaluate(student, data, "test")
    assert found["test_ensemble_error"] == pytest.approx(error)
    equal_states(method.kept[2], student)
    again, _ = attached(Snapshot(optimizer=SGD, snapshots=3))
    again.load_state_dict(method.state_dict())
    assert again.taken == 3
    assert again.evaluate(student, data, "test") == found


def test_ensemble_metrics_equal_loops_over_examples_and_pairs() -> None:
    data: Any = Data()
    nets = [make_model() for _ in range(3)]

    def members(inputs: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.stack([net(inputs) for net in nets], dim=1)
        return logits, logits.mean(1)

    with torch.no_grad():
        found = ensemble_metrics(members, data, "test")
        z = members(data.inputs)[0].numpy()
    p = np.exp(z) / np.exp(z).sum(2, keepdims=True)
    y = data.targets.numpy()
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    kl = np.mean([(p[:, i] * np.log(p[:, i] / p[:, j])).sum(1) for i, j in pairs])
    apart = np.mean([np.linalg.norm(p[:, i] - p[:, j], axis=1) for i, j in pairs])
    differ = np.mean([z[:, i].argmax(1) != z[:, j].argmax(1) for i, j in pairs])
    assert found["test_ensemble_error"] == pytest.approx(100 * np.mean(z.mean(1).argmax(1) != y))
    assert found["test_branch_error_mean"] == pytest.approx(100 * np.mean(z.argmax(2) != y[:, None]))
    assert found["test_branch_disagreement"] == pytest.approx(100 * differ)
    assert found["test_branch_kl"] == pytest.approx(kl)
    assert found["test_branch_variance"] == pytest.approx(apart)


@pytest.mark.parametrize("method", [Independent, Mutual, Snapshot])
def test_a_task_without_classes_and_no_nets_are_refused(method: type[Any]) -> None:
    count = "nets" if issubclass(method, Peers) else "snapshots"
    with pytest.raises(UserError, match=f"method.{count}=0; valid: 1 or more"):
        method(optimizer=SGD, **{count: 0})
    made = method(optimizer=SGD, **{count: 2})
    made.task = SimpleNamespace()
    model = make_model()
    model.task = "regression"
    data: Any = Data()
    with pytest.raises(UserError, match="is for classification, and this model for regression"):
        made.attach(model, make_model, data)


@pytest.mark.parametrize(
    "schedule",
    [constant, cosine, partial(multistep, milestones=[0.5], factor=0.1), partial(cyclic_cosine, cycles=4)],
)
def test_snapshots_of_a_schedule_whose_cycles_do_not_end_there_are_refused(schedule: Any) -> None:
    with pytest.raises(
        UserError, match=r"method.snapshots=5: .*valid: schedule=cyclic_cosine schedule.cycles=5"
    ):
        Snapshot(optimizer=SGD, snapshots=5).check_schedule(schedule)


@pytest.mark.parametrize("cycles", [5, 10])
def test_snapshots_go_with_cycles_that_end_where_they_are_taken(cycles: int) -> None:
    Snapshot(optimizer=SGD, snapshots=5).check_schedule(partial(cyclic_cosine, cycles=cycles))
