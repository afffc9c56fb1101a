"""The right problem for each data set and model, and what does not go together."""

import pytest
import torch
from torch import nn

from common.base.errors import UserError
from common.data.tables.bundled import BreastCancer, Diabetes, Wine
from common.data.tables.libsvm import Rcv1
from common.data.tables.synthetic import SyntheticLogistic
from common.models.linear import LogisticRegression, RobustRegression
from papers.spider.data import LogisticStream, QuarticSaddle
from papers.spider.models import Quartic
from papers.spider.problems.factory import build_problem
from papers.spider.problems.linear import LogisticProblem, RobustRegressionProblem, SoftmaxProblem
from papers.spider.problems.network import NetworkProblem
from papers.spider.problems.quartic import QuarticProblem
from papers.spider.problems.regulariser import Regulariser
from papers.spider.problems.sparse import SparseRows
from papers.spider.problems.stream import StreamProblem

CPU = torch.device("cpu")
SHARED = {
    "data_dir": "data", "seed": 0, "source": "real", "limit": None, "validation": 0.0,
    "verify": True, "batch_size": 32, "positive": None,
}  # fmt: skip


def data(kind: str):
    if kind == "stream":
        chosen = LogisticStream(kind="stream", normalise="none", **SHARED)
    elif kind == "saddle":
        chosen = QuarticSaddle(kind="analytic", normalise="none", dim=4, components=6, **SHARED)
    elif kind == "synthetic":
        chosen = SyntheticLogistic(
            kind="tabular_classification", normalise="none", n=300, seed_data=0, **SHARED
        )
    elif kind == "diabetes":
        chosen = Diabetes(kind="regression", normalise="standard", **SHARED)
    else:
        maker = {"two": BreastCancer, "three": Wine}[kind]
        chosen = maker(kind="tabular_classification", normalise="unit_rows", **SHARED)
    chosen.setup()
    return chosen


def logistic(of, bias: bool = False) -> LogisticRegression:
    return LogisticRegression(
        shape=of.shape, classes=of.classes, regulariser="nonconvex", alpha=0.1, bias=bias
    )


def quartic(dim: int = 4) -> Quartic:
    return Quartic(shape=(dim,), classes=None, curvature=1.0, noise=0.5, design_seed=0)


def test_linear_models_get_their_closed_forms_in_float64() -> None:
    two, three, regression = data("two"), data("three"), data("diabetes")
    built = [
        build_problem(two, logistic(two), CPU),
        build_problem(three, logistic(three, bias=True), CPU),
        build_problem(regression, RobustRegression(shape=regression.shape, classes=None, bias=True), CPU),
    ]
    kinds = [LogisticProblem, SoftmaxProblem, RobustRegressionProblem]
    assert [type(problem) for problem in built] == kinds
    assert [problem.dtype for problem in built] == [torch.float64] * 3
    assert [problem.dim for problem in built] == [30, 3 * 14, 11]


def test_the_stream_and_the_saddle_get_theirs() -> None:
    stream, saddle = data("stream"), data("saddle")
    online = build_problem(stream, logistic(stream), CPU)
    assert isinstance(online, StreamProblem) and online.n is None
    assert isinstance(build_problem(saddle, quartic(), CPU), QuarticProblem)


def test_any_other_module_is_a_network() -> None:
    two = data("two")
    net = nn.Sequential(nn.Linear(30, 2))
    net.task = "classification"
    assert isinstance(build_problem(two, net, CPU), NetworkProblem)


@pytest.mark.parametrize("kind", ["stream", "saddle", "two"])
def test_a_mismatch_is_one_line(kind: str) -> None:
    chosen = data(kind)
    model = {"stream": lambda: logistic(chosen, bias=True), "saddle": lambda: nn.Linear(4, 1)}
    with pytest.raises(UserError, match="valid: ") as error:
        build_problem(chosen, model.get(kind, lambda: quartic(30))(), CPU)
    assert "\n" not in str(error.value)


def test_unit_rows_give_the_smoothness_of_the_spec() -> None:
    two = data("two")
    assert build_problem(two, logistic(two), CPU).smoothness == pytest.approx(0.25 + 0.2, rel=1e-5)


def test_test_accuracy_is_of_the_module_at_the_point() -> None:
    for kind in ("two", "three"):
        of = data(kind)
        model = logistic(of, bias=True)
        problem = build_problem(of, model, CPU)
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        x = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).double()[None]
        inputs, labels = of.batch("test", slice(None), augment=False)
        expected = (model(inputs).argmax(1) == labels).double().mean()
        assert float(problem.evaluate(x)["test_accuracy"]) == pytest.approx(float(expected))


def test_stream_noise_is_within_sigma_and_the_start_is_far_from_stationary() -> None:
    stream = data("stream")
    problem = build_problem(stream, logistic(stream), CPU)
    start = problem.start(2)
    assert float(torch.linalg.vector_norm(problem.true_gradient(start), dim=1).min()) > 0.25
    for scale in (1.0, 0.0, -1.0):
        x = scale * start[:1]
        batch = problem.everything()
        singles = (torch.sigmoid(batch.inputs @ x[0]) - 1)[:, None] * batch.inputs
        variance = (singles - singles.mean(0)).square().sum(1).mean()
        assert 0.1 < float(variance) <= 1.0


def test_stream_draws_are_fresh_and_have_unit_rows() -> None:
    from common.numerics.sampling import ReplicateSampler

    stream = data("stream")
    problem = build_problem(stream, logistic(stream), CPU)
    sampler = ReplicateSampler(0, 2, None, CPU, torch.float64)
    first, second = problem.draw(sampler, 50, None), problem.draw(sampler, 50, None)
    torch.testing.assert_close(first.inputs.norm(dim=-1), torch.ones(2, 50, dtype=torch.float64))
    assert not torch.equal(first.inputs, second.inputs)


def test_synthetic_logistic_is_one_fixed_ill_conditioned_problem() -> None:
    one, other = data("synthetic"), data("synthetic")
    assert torch.equal(one.train.inputs, other.train.inputs)
    assert float(one.train.inputs.norm(dim=1).max()) == pytest.approx(1.0)
    spread = one.train.inputs.std(0)
    assert 5 < float(spread[0] / spread[-1]) < 20
    assert 0.3 < float(one.train.targets.float().mean()) < 0.7
    assert len(one.test) == 1000


@pytest.mark.parametrize(("key", "value"), [("components", 5), ("dim", 1)])
def test_saddle_data_refuse_bad_sizes(key: str, value: int) -> None:
    sizes = {"dim": 4, "components": 6, key: value}
    with pytest.raises(UserError, match=f"dataset.{key}={value}"):
        QuarticSaddle(kind="analytic", normalise="none", **sizes, **SHARED)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_a_sparse_set_gives_the_closed_form_on_what_is_stored() -> None:
    options = SHARED | {"source": "synthetic", "limit": 60}
    data = Rcv1(kind="tabular_classification", normalise="unit_rows", **options)
    data.setup()
    problem = build_problem(data, logistic(data, bias=True), CPU)
    assert isinstance(problem, LogisticProblem)
    assert isinstance(problem.rows, SparseRows)
    dense, labels = data.batch("train", slice(None), augment=False)
    rows = torch.cat([dense.double(), torch.ones(len(dense), 1, dtype=torch.float64)], dim=1)
    assert labels is not None
    expected = LogisticProblem(rows, labels, Regulariser("nonconvex", 0.1, dense.shape[1]))
    x = torch.linspace(-1, 1, problem.dim, dtype=torch.float64)[None]
    torch.testing.assert_close(problem.true_value(x), expected.true_value(x))
    torch.testing.assert_close(problem.true_gradient(x), expected.true_gradient(x))
    scores = data.batch("test", slice(None), augment=False)[0].double() @ x[0, :-1] + x[0, -1]
    correct = (scores > 0) == data.labels("test")
    assert problem.evaluate(x)["test_accuracy"].item() == pytest.approx(correct.double().mean().item())
