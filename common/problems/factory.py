"""Which problem a data set and a model make together."""

import torch
from torch import Tensor, nn

from common.data.base import Split, TensorData
from common.data.synthetic import LogisticStream, QuarticSaddle
from common.models.analytic import Quartic
from common.models.linear import LogisticRegression, RobustRegression
from common.problems.linear import (
    Evaluate,
    LogisticProblem,
    RobustRegressionProblem,
    RowsProblem,
    SoftmaxProblem,
)
from common.problems.network import NetworkProblem
from common.problems.protocol import Problem
from common.problems.quartic import QuarticProblem
from common.problems.regulariser import Regulariser
from common.problems.stream import StreamProblem
from common.runs.errors import UserError

# entries of a matrix of rows
LARGE = 50_000_000


def build_problem(data: TensorData, model: nn.Module, device: torch.device) -> Problem:
    """The closed form where there is one (linear models, the quartic), else the network itself.

    Closed forms are in float64, but in float32 where the device has no float64 or the rows would take more
    than 400 MB.

    Args:
        data: after `setup`.
        model: built for the data's shape and classes.
        device: where the problem is to live; the data are moved there.

    Raises:
        UserError: a data set and a model that do not go together.
    """
    data.move(device)
    numbers = data.train.inputs.numel()
    dtype = torch.float32 if device.type == "mps" or numbers > LARGE else torch.float64
    if isinstance(data, LogisticStream | QuarticSaddle) or isinstance(model, Quartic):
        return _analytic(data, model, device, dtype)
    if isinstance(model, LogisticRegression):
        return _logistic(data, model, dtype)
    if isinstance(model, RobustRegression):
        rows, targets = _rows(data, model.bias, dtype)
        return RobustRegressionProblem(rows, targets.to(dtype), Regulariser("none", 0.0, 0))
    return NetworkProblem(data, model.to(device))


def _analytic(data: TensorData, model: nn.Module, device: torch.device, dtype: torch.dtype) -> Problem:
    if isinstance(data, LogisticStream) and isinstance(model, LogisticRegression) and not model.bias:
        return StreamProblem(data, _regulariser(model, data.shape[0]), device, dtype)
    if isinstance(data, QuarticSaddle) and isinstance(model, Quartic):
        signs = data.train.inputs[:, 0].to(device, dtype)
        return QuarticProblem(model.A.to(device, dtype), model.B.to(device, dtype), signs)
    valid = {LogisticStream: "model=nonconvex_logistic (without bias)", QuarticSaddle: "model=quartic"}
    advice = valid.get(type(data), "dataset=quartic_saddle for model=quartic")
    raise UserError(f"dataset {data.NAME} and model {type(model).__name__} do not fit (valid: {advice})")


def _rows(data: TensorData, bias: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Normalised training inputs [n, d], a column of ones last for a bias, and targets [n]."""
    inputs, targets = data.batch("train", slice(None), augment=False)
    assert targets is not None
    rows = inputs.flatten(1).to(dtype)
    return (torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1) if bias else rows), targets


def _regulariser(model: LogisticRegression, columns: int) -> Regulariser:
    return Regulariser(model.regulariser, model.alpha, columns)


def _logistic(data: TensorData, model: LogisticRegression, dtype: torch.dtype) -> RowsProblem:
    problem: RowsProblem
    if model.classes == 2:
        rows, labels = _rows(data, model.bias, dtype)
        problem = LogisticProblem(rows, labels, _regulariser(model, rows.shape[1] - model.bias))
    else:
        rows, labels = _rows(data, False, dtype)
        regulariser = _regulariser(model, model.classes * rows.shape[1])
        problem = SoftmaxProblem(rows, labels, model.classes, model.bias, regulariser)
    problem.evaluator = _accuracy(data, model)
    return problem


def _accuracy(data: TensorData, model: LogisticRegression) -> Evaluate:
    """Accuracy on the validation and test splits of the model with its parameters set to a point."""

    def evaluate(x: Tensor) -> dict[str, Tensor]:
        splits = {"validation": data.validation, "test": _test(data)}
        return {
            f"{name}_accuracy": torch.tensor([_correct(data, model, name, point) for point in x])
            for name, split in splits.items()
            if split is not None
        }

    return evaluate


def _test(data: TensorData) -> Split | None:
    """The test set; None where its file is not there, which must not undo a finished run."""
    try:
        return data.test
    except UserError:
        return None


@torch.no_grad()
def _correct(data: TensorData, model: LogisticRegression, split: str, point: Tensor) -> float:
    inputs, labels = data.batch(split, slice(None), augment=False)  # type: ignore[arg-type]
    assert labels is not None
    weight = model.linear.weight
    weights, biases = point[: weight.numel()].view_as(weight), point[weight.numel() :]
    scores = inputs.flatten(1).to(point.dtype) @ weights.mT + (biases if model.bias else 0.0)
    predicted = scores.squeeze(1) > 0 if model.classes == 2 else scores.argmax(1)
    return float((predicted == labels).double().mean())
