"""The modules: errors and seconds as results, resume, refusals; rows and claims that can be built."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from qff_toys import UCB, quadrature, sample, surrogate

from common.base.errors import UserError
from common.base.module import PaperModule
from common.claims.claims import load_claims
from common.data.functions.additive import Overlap, Sine
from common.data.functions.no_data import NoData
from common.runs.check import check_config
from common.runs.compose import compose
from common.runs.runner import build
from common.tables.tables import Entry, runnable
from papers.qff.approximation import KernelError, PosteriorError, StepSeconds, covariance
from papers.qff.error import kernel_error
from papers.qff.features import ORF, RFF, Exact, FeatureFamily, Halton
from papers.qff.module import AdditiveSearchModule, qff
from papers.qff.search import FourierUCB

SETTINGS: dict[str, Any] = {
    "seed": 0, "evaluations": 8, "initial": 3, "design": "uniform", "batch": 1, "repeats": 5, "workers": 1,
    "measure": "error", "points": 60, "timed_steps": 2,
}  # fmt: skip


def sine() -> Sine:
    return Sine(kind="objective", noise=0.1, lengthscale=0.2, variance=1.0, mean=0.0)


def nothing(dim: int = 1) -> NoData:
    return NoData(kind="no_data", dim=dim)


def known(dim: int, **given: Any) -> Any:
    return surrogate(
        dim, groups="full", **({"lengthscale": 0.5, "variance": 1.0, "noise": 0.1, "mean": 0.0} | given)
    )


def made(method: Any, data: Any, model: Any = None, **given: Any) -> PaperModule:
    return qff(data=data, model=model or known(data.space.dim), method=method, **(SETTINGS | given))


def results(m: PaperModule, root: Path) -> dict[str, Any]:
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False, default_root_dir=root,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(m)
    return m.results()


def test_kernel_errors_are_those_of_the_features_and_under_their_bound(tmp_path: Path) -> None:
    measured = made(quadrature(8), nothing())
    assert isinstance(measured, KernelError)
    found = results(measured, tmp_path)
    assert found["sup_error"] == pytest.approx(4.87e-5, rel=0.02)
    assert found["sup_error"] <= found["error_bound"] < 3 * found["sup_error"]
    assert found["features"] == 8 and found["diagonal_error"] < 1e-14
    plane = results(made(quadrature(8), nothing(2)), tmp_path)
    assert plane["features"] == 64 and found["sup_error"] < plane["sup_error"] < plane["error_bound"]


@pytest.mark.parametrize("family", [RFF(nodes=8, form="paired"), Halton(nodes=8), ORF(nodes=8)])
def test_other_features_are_worse_and_those_at_random_have_a_spread(
    family: FeatureFamily, tmp_path: Path
) -> None:
    found = results(made(family, nothing()), tmp_path)
    assert found["sup_error"] > 0.01 and "error_bound" not in found
    assert ("sup_error_sem" in found) == (family.NAME != "halton")


def test_the_posterior_on_enough_quadrature_features_is_the_exact_one(tmp_path: Path) -> None:
    measured = made(quadrature(64), sine(), known(1, lengthscale=0.2))
    assert isinstance(measured, PosteriorError)
    found = results(measured, tmp_path)
    assert found["mean_error"] < 1e-8 and found["var_error"] < 1e-8
    assert 0.8 < found["exact_far_variance"] < 1.0
    starved = results(made(RFF(nodes=16, form="paired"), sine(), known(1, lengthscale=0.2)), tmp_path)
    assert starved["far_variance"] < found["exact_far_variance"] - 0.1
    assert starved["max_mean_deviation"] > 0.1


@pytest.mark.parametrize("method", [quadrature(16), Exact()])
def test_steps_are_timed(method: Any, tmp_path: Path) -> None:
    measured = made(method, nothing(), measure="seconds")
    assert isinstance(measured, StepSeconds)
    found = results(measured, tmp_path)
    assert found["seconds"] > 0 and found["observations"] == 60 and len(measured.times) == 2


def test_a_timed_run_that_was_stopped_keeps_its_times(tmp_path: Path) -> None:
    first = made(quadrature(16), nothing(), measure="seconds")
    results(first, tmp_path)
    second = made(quadrature(16), nothing(), measure="seconds")
    second.load_search_state(first.search_state())  # type: ignore[attr-defined]
    assert second.results() == first.results()


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: made(Exact(), nothing()), "method=features/exact has no error"),
        (lambda: made(quadrature(8), sample()), "dataset=gp_sample: method=features/qff is measured on"),
        (lambda: made(quadrature(8), nothing(3)), "dataset.dim=3: kernels are compared in 1 or 2 dimensions"),
        (lambda: made(quadrature(8), sine(), points=0), "paper.points=0"),
        (lambda: made(quadrature(8), nothing(), measure="seconds", timed_steps=0), "paper.timed_steps=0"),
    ],
)
def test_what_cannot_be_measured_gets_one_line(make: Any, line: str) -> None:
    with pytest.raises(UserError) as raised:
        make()
    assert line in str(raised.value) and "\n" not in str(raised.value)


def test_unknown_hyperparameters_of_a_kernel_get_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.lengthscale=null: dataset=no_data says none"):
        results(made(quadrature(8), nothing(), known(1, lengthscale=None)), tmp_path)


def test_a_chain_of_overlapping_groups_is_searched(tmp_path: Path) -> None:
    data = Overlap(kind="objective", dim=3, noise=0.01, lengthscale=0.3, variance=1.0, mean=0.0)
    method = FourierUCB(features=quadrature(16), grid=101, grid_2d=21, **UCB)
    m = made(method, data, surrogate(3, groups="chain", mean=0.0), evaluations=25)
    assert isinstance(m, AdditiveSearchModule)
    found = results(m, tmp_path)
    assert found["simple_regret"] < 0.02 and found["evaluations"] == 25


def one_of_each() -> list[Entry]:
    """The first row of each table with each method and data set."""
    found: dict[tuple[str, str, str], Entry] = {}
    for entry in runnable("qff"):
        found.setdefault((entry.table, entry.choose.get("method", ""), entry.choose.get("model", "")), entry)
    return list(found.values())


@pytest.mark.parametrize("entry", one_of_each(), ids=lambda entry: entry.row)
def test_rows_of_the_tables_can_be_built(entry: Any) -> None:
    config, request = compose([f"entry={entry.name}", "scale=smoke"])
    check_config(config)
    assert isinstance(build(config, request), PaperModule)


@pytest.mark.parametrize("claim", load_claims("qff"), ids=lambda claim: claim.name)
def test_the_first_run_of_a_claim_can_be_built(claim: Any) -> None:
    config, request = compose(list(claim.all_runs()[0].words))
    check_config(config)
    assert isinstance(build(config, request), PaperModule)


def test_other_features_can_be_put_into_a_search() -> None:
    words = ["paper=qff", "method=search/qff_ucb", "method/features=halton"]
    config, request = compose([*words, "method.features.nodes=16"])
    check_config(config)
    m = build(config, request)
    assert isinstance(m, AdditiveSearchModule) and isinstance(m.searcher, FourierUCB)
    assert isinstance(m.searcher.features, Halton) and m.searcher.features.nodes == 16


def test_the_spec_of_rows_is_whole() -> None:
    """As many rows as the tables of the specification have."""
    counts: dict[str, int] = {}
    for entry in runnable("qff"):
        counts[entry.table] = counts.get(entry.table, 0) + 1
    assert counts == {
        "fig_readme": 4, "fig_kernel_error": 32, "fig_posterior_error": 8, "fig_matern_error": 8,
        "fig_benchmarks": 30, "fig_fel": 10, "fig_runtime": 8,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lengthscale", "nodes", "error", "enough"),
    [(0.05, 32, 0.9993, "128 nodes would do"), (0.1, 32, 0.383, "64 nodes would do"), (0.2, 32, 0.0, None)],
)
def test_a_kernel_that_the_nodes_do_not_resolve_is_said_by_its_measured_error(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    lengthscale: float,
    nodes: int,
    error: float,
    enough: str | None,
) -> None:
    method = FourierUCB(features=quadrature(nodes), grid=101, grid_2d=31, **UCB)
    found = results(made(method, sample(), surrogate(3, lengthscale=lengthscale), repeats=2), tmp_path)
    assert found["kernel_error"] == pytest.approx(error, abs=2e-3)
    said = [line for line in capsys.readouterr().out.splitlines() if "differs from se" in line]
    assert len(said) == (enough is not None)
    if enough is not None:
        assert f"nodes={nodes}" in said[0] and enough in said[0] and f"{found['kernel_error']:.4g}" in said[0]


@pytest.mark.parametrize("dim", [1, 2])
def test_the_measured_error_is_the_largest_over_pairs(dim: int, tmp_path: Path) -> None:
    gamma = torch.full((1, dim), 0.2).double()
    family = quadrature(12)
    features = family.build("se", gamma, None)  # type: ignore[arg-type]
    axis = torch.linspace(-0.5, 0.5, 41, dtype=torch.float64)
    x = torch.cartesian_prod(*[axis] * dim).reshape(-1, dim)
    exact = covariance("se", gamma[0], x, x)
    largest = float((features(x)[0, 0] @ features(x)[0, 0].mT - exact).abs().max())
    found = kernel_error(features, "se", gamma, torch.ones_like(gamma))
    assert found == pytest.approx(largest, rel=0.05)


def test_the_data_of_a_posterior_are_no_replicates_features(tmp_path: Path) -> None:
    drawn: list[int] = []

    class Spy(RFF):
        def build(self, kernel: Any, lengthscale: Any, random: Any) -> Any:
            drawn.extend((1e9 * random.uniform(200)).long().flatten().tolist())
            return super().build(kernel, lengthscale, random)

    m = made(Spy(nodes=16, form="paired"), sine(), points=60)
    values = m.data.values
    seen: list[int] = []

    def spied(x: Any) -> Any:
        seen.extend((1e9 * (2 * x[..., 0] + 1)).round().long().flatten().tolist())
        return values(x)

    m.data.values = spied  # type: ignore[method-assign]
    results(m, tmp_path)
    near = {number + shift for number in drawn for shift in (-1, 0, 1)}
    assert len(seen) == 300 and not near & set(seen)
