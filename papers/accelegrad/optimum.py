"""The least value of a linear classifier's training objective, by solvers that are not ours."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from sklearn.svm import LinearSVC

from common.data.shared.in_memory import TensorData
from common.data.tables.libsvm import SparseTable
from papers.accelegrad.hinge import LinearSvm
from papers.accelegrad.problems import binary_unit

Array = NDArray[np.float64]


def least_objective(data: TensorData, model: LinearSvm) -> float:
    """min (1/n) sum_i l(y_i w'x_i) + alpha/2 ||w||^2 over the training split, from above.

    The hinge by liblinear's dual coordinate descent (LinearSVC with C = 1 / (alpha n)), the smoothed hinge by
    L-BFGS, both in float64. Their tolerances are absolute, so they get the inputs in a unit in which the
    largest is about 1: w / unit has the objective of w with alpha / unit^2.

    Args:
        data: after `setup`; model: gives the objective, at weights of its own.
    """
    rows, signs = _rows(data)
    if isinstance(rows, csr_matrix):
        unit = binary_unit(torch.from_numpy(rows.data))
        rows = csr_matrix(rows / unit)
    else:
        unit = binary_unit(torch.from_numpy(rows))
        rows = rows / unit
    alpha = model.alpha / unit**2
    if model.smoothing == 0:
        C = 1 / (alpha * len(signs))
        solver = LinearSVC(loss="hinge", C=C, fit_intercept=False, tol=1e-8, max_iter=20_000, random_state=0)
        return _objective(solver.fit(rows, signs).coef_[0], rows, signs, model, alpha)[0]
    found = minimize(
        _objective,
        np.zeros(rows.shape[1]),
        args=(rows, signs, model, alpha),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 10_000, "ftol": 1e-15, "gtol": 1e-10},
    )
    return float(found.fun)


def _rows(data: TensorData) -> tuple[csr_matrix | Array, Array]:
    """The training inputs [n, d], sparse where they are kept so, and labels -1 and 1."""
    rows: csr_matrix | Array
    if isinstance(data, SparseTable):
        stored, labels = data.sparse_rows("train").cpu(), data.labels("train")
        values, columns = stored.values().double().numpy(), stored.col_indices().numpy()
        shape = (stored.shape[0], stored.shape[1])
        rows = csr_matrix((values, columns, stored.crow_indices().numpy()), shape=shape)
    else:
        inputs, labels = data.batch("train", slice(None), augment=False)
        rows = inputs.flatten(1).cpu().numpy().astype(np.float64)
    assert labels is not None
    return rows, 2.0 * labels.cpu().numpy() - 1


def _objective(
    w: Array, rows: csr_matrix | Array, signs: Array, model: LinearSvm, alpha: float
) -> tuple[float, Array]:
    """The objective and its gradient (0 where the hinge has a kink)."""
    scores = torch.from_numpy(rows @ w).requires_grad_()
    total = model.losses(scores, torch.from_numpy((signs + 1) / 2)).mean()
    (slopes,) = torch.autograd.grad(total, scores)
    value = float(total.detach()) + alpha / 2 * float(w @ w)
    return value, rows.T @ slopes.numpy() + alpha * w
