"""Which problem a data set and a model make together."""

import torch
from torch import Tensor, nn

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.data.shared.in_memory import TensorData
from common.data.tables.libsvm import SparseTable
from common.models.linear import LogisticRegression, RobustRegression
from papers.spider.data import LogisticStream, QuarticSaddle
from papers.spider.models import Quartic
from papers.spider.problems.linear import (
    Evaluate,
    LogisticProblem,
    RobustRegressionProblem,
    Rows,
    RowsProblem,
    SoftmaxProblem,
)
from papers.spider.problems.network import NetworkProblem
from papers.spider.problems.protocol import Problem
from papers.spider.problems.quartic import QuarticProblem
from papers.spider.problems.regulariser import Regulariser
from papers.spider.problems.sparse import SparseRows
from papers.spider.problems.stream import StreamProblem

# entries of a matrix of rows
LARGE = 50_000_000


def build_problem(data: DataSet, model: nn.Module, device: torch.device) -> Problem:
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
    if not isinstance(data, TensorData):
        return NetworkProblem(data, model.to(device))
    dtype = torch.float32 if device.type == "mps" or _stored(data.train.inputs) > LARGE else torch.float64
    if isinstance(data, LogisticStream | QuarticSaddle) or isinstance(model, Quartic):
        return _analytic(data, model, device, dtype)
    if isinstance(model, LogisticRegression):
        return _logistic(data, model, dtype)
    if isinstance(model, RobustRegression):
        rows, targets = _rows(data, model.bias, dtype)
        return RobustRegressionProblem(rows, targets.to(dtype), Regulariser("none", 0.0, 0))
    return NetworkProblem(data, model.to(device))


def _stored(inputs: Tensor) -> int:
    """How many numbers a tensor holds, zeros of sparse ones apart."""
    return inputs.values().numel() if inputs.layout == torch.sparse_csr else inputs.numel()


def _analytic(data: TensorData, model: nn.Module, device: torch.device, dtype: torch.dtype) -> Problem:
    if isinstance(data, LogisticStream) and isinstance(model, LogisticRegression) and not model.bias:
        return StreamProblem(data, _regulariser(model, data.shape[0]), device, dtype)
    if isinstance(data, QuarticSaddle) and isinstance(model, Quartic):
        signs = data.train.inputs[:, 0].to(device, dtype)
        return QuarticProblem(model.A.to(device, dtype), model.B.to(device, dtype), signs)
    valid = {LogisticStream: "model=nonconvex_logistic (without bias)", QuarticSaddle: "model=quartic"}
    advice = valid.get(type(data), "dataset=quartic_saddle for model=quartic")
    raise UserError(f"dataset {data.NAME} and model {type(model).__name__} do not fit (valid: {advice})")


def _rows(data: TensorData, bias: bool, dtype: torch.dtype) -> tuple[Rows, Tensor]:
    """Normalised training inputs [n, d], a column of ones last for a bias, and targets [n]."""
    rows, targets = _split_rows(data, "train", dtype)
    if rows.layout == torch.sparse_csr:
        return SparseRows(_with_ones(rows) if bias else rows, None), targets
    return (torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1) if bias else rows), targets


def _with_ones(rows: Tensor) -> Tensor:
    """A sparse CSR matrix [n, d] with a column of ones added: [n, d + 1]."""
    ones = rows.values().new_ones(len(rows), 1).to_sparse_coo()
    return torch.cat([rows.to_sparse_coo(), ones], dim=1).to_sparse_csr()


def _regulariser(model: LogisticRegression, columns: int) -> Regulariser:
    return Regulariser(model.regulariser, model.alpha, columns)


def _logistic(data: TensorData, model: LogisticRegression, dtype: torch.dtype) -> RowsProblem:
    problem: RowsProblem
    if model.classes == 2:
        rows, labels = _rows(data, model.bias, dtype)
        problem = LogisticProblem(rows, labels, _regulariser(model, rows.shape[1] - model.bias))
    else:
        rows, labels = _rows(data, False, dtype)
        assert isinstance(rows, Tensor)
        regulariser = _regulariser(model, model.classes * rows.shape[1])
        problem = SoftmaxProblem(rows, labels, model.classes, model.bias, regulariser)
    problem.evaluator = _accuracy(data, model)
    return problem


def _accuracy(data: TensorData, model: LogisticRegression) -> Evaluate:
    """Accuracy on the validation and test splits of the model with its parameters set to a point."""

    def evaluate(x: Tensor) -> dict[str, Tensor]:
        return {
            f"{split}_accuracy": torch.tensor([_correct(data, model, split, point) for point in x])
            for split in _measured(data)
        }

    return evaluate


def _measured(data: TensorData) -> list[SplitName]:
    """The splits to judge by; without the test set where its file is missing: that undoes no finished run."""
    splits: list[SplitName] = ["validation"] if data.has_validation else []
    try:
        data.size("test")
    except UserError:
        return splits
    return [*splits, "test"]


@torch.no_grad()
def _correct(data: TensorData, model: LogisticRegression, split: SplitName, point: Tensor) -> float:
    weight = model.linear.weight
    weights, biases = point[: weight.numel()].view_as(weight), point[weight.numel() :]
    rows, labels = _split_rows(data, split, point.dtype)
    scores = rows @ weights.mT + (biases if model.bias else 0.0)
    predicted = scores.squeeze(1) > 0 if model.classes == 2 else scores.argmax(1)
    return float((predicted == labels).double().mean())


def _split_rows(data: TensorData, split: SplitName, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """All rows of a split, [n, d], dense or sparse CSR, and its labels [n]."""
    if isinstance(data, SparseTable):
        rows, labels = data.sparse_rows(split), data.labels(split)
    else:
        inputs, labels = data.batch(split, slice(None), augment=False)
        rows = inputs.flatten(1)
    assert labels is not None
    return rows.to(dtype), labels
