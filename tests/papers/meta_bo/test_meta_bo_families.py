"""Objectives with training functions: what a replicate may learn from, known maxima, files that are wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from common.base.errors import UserError
from common.data.shared import download
from papers.meta_bo.gp_family import GP2d, GPArms
from papers.meta_bo.grasp import MetaGraspAg, MetaGraspBasePlace, failing_scores, standardised


def grasp(data_dir: str = "data", **given: Any) -> MetaGraspAg:
    settings = {"kind": "objective", "source": "synthetic", "verify": True, "portion": 1.0, "missing": 0.0}
    return MetaGraspAg(data_dir=data_dir, **(settings | given))


def plane(**given: Any) -> GP2d:
    settings = {
        "kind": "objective", "features": 200, "functions": 30, "points": 25, "noise": 0.01, "portion": 1.0,
        "missing": 0.0,
    }  # fmt: skip
    return GP2d(**(settings | given))


@pytest.mark.parametrize(("portion", "kept"), [(1.0, 1799), (0.6, 1079), (0.07, 125), (0.01, 17)])
def test_a_replicate_learns_from_the_first_of_the_other_problems(portion: float, kept: int) -> None:
    data = grasp(portion=portion)
    data.setup()
    data.draw([0, 5, 1799, 1804])
    assert data.rows == [0, 5, 1799, 4]
    training = data.training()
    assert training.counts(4) == [kept] * 4
    for r, own in enumerate(data.rows):
        expected = np.delete(data.scores.numpy(), own, axis=0)[:kept]
        np.testing.assert_array_equal(training.y[training.kept[r]], expected)


def test_scores_are_those_of_the_replicates_own_problem_and_the_best_is_the_optimum() -> None:
    data = grasp()
    data.setup()
    data.draw([3, 8])
    x = torch.tensor([[[0.0], [161.0]], [[7.0], [7.0]]], dtype=torch.float64)
    s = data.scores
    assert data.values(x).tolist() == [[s[3, 0], s[3, 161]], [s[8, 7], s[8, 7]]]
    assert data.optimum().tolist() == [s[3].max(), s[8].max()]


def test_entries_are_missing_with_their_probability_and_the_same_in_every_run() -> None:
    def gaps() -> torch.Tensor:
        data = grasp(missing=0.3)
        data.setup()
        data.draw([0])
        return data.training().y.isnan()

    assert float(gaps().double().mean()) == pytest.approx(0.3, abs=0.005) and torch.equal(gaps(), gaps())


def test_made_up_scores_fail_as_often_as_said() -> None:
    scores = failing_scores(200, 100, failures=0.9, worst=-6.0, best=-1.2)
    assert float((scores == -6.0).double().mean()) == pytest.approx(0.9, abs=1e-4)
    assert float(scores.max()) == -1.2 and float(scores[scores > -6.0].min()) > -3.7
    stand_in = MetaGraspBasePlace(kind="objective", problems=20, arms=12, portion=1.0, missing=0.0)
    assert stand_in.shape == (64,) and stand_in.space.arms == 12


def test_features_are_standardised_and_constant_ones_are_zero() -> None:
    features = torch.randn(40, 3, dtype=torch.float64)
    features[:, 1] = 0.1
    found = standardised(features)
    np.testing.assert_allclose(found.std(0, correction=0), [1, 0, 1], atol=1e-12)


def test_functions_of_arms_have_the_covariance_that_is_said() -> None:
    data = GPArms(
        kind="objective", arms=6, functions=20_000, lengthscale=0.3, noise=0.5, portion=1.0, missing=0.0
    )
    data.draw(list(range(3)))
    y = data.family()[0]
    expected = data.covariance + 0.25 * torch.eye(6, dtype=torch.float64)
    np.testing.assert_allclose(np.cov(y.numpy().T), expected, atol=0.06)
    np.testing.assert_allclose(y.mean(0), data.mean, atol=0.04)
    assert torch.equal(data.optimum(), data.mine.max(1).values)


def test_the_cheap_weights_have_the_law_of_the_authors_generator() -> None:
    """w = mu + R g with R, mu uniform: means, variances and the common part agree over many draws."""
    F, draws = 20, 1500
    rng = np.random.default_rng(0)
    R, g = rng.random((draws, F, 10 * F)), rng.standard_normal((draws, 10 * F))
    theirs = rng.random((draws, F)) + np.einsum("dfk,dk->df", R, g)
    data = plane(features=F)
    ours = np.stack([data._function(i)[2].numpy() for i in range(draws)]) / (2 / F) ** 0.5
    assert stats.ks_2samp(theirs.mean(1), ours.mean(1)).pvalue > 1e-3
    assert stats.ks_2samp(theirs[:, 0] - theirs[:, 1], ours[:, 0] - ours[:, 1]).pvalue > 1e-3
    assert ours.mean(1).var() == pytest.approx(10 * F / 4, rel=0.15)


def test_a_maximum_in_the_plane_is_above_a_fine_search_and_is_a_value_of_the_function() -> None:
    data = plane(features=60)
    data.draw([0, 1])
    line = torch.linspace(-10, 10, 300, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    best = data.values(grid.expand(2, -1, -1)).max(1).values
    above = data.optimum() - best
    assert (above >= -1e-9).all() and (above < 0.02 * best.abs()).all()


def test_functions_that_portion_leaves_out_change_nothing_of_the_others() -> None:
    whole, part = plane(), plane(portion=0.35)
    for data in (whole, part):
        data.draw([0])
    assert torch.equal(part.training().y, whole.training().y[:10])


@pytest.mark.parametrize(
    ("content", "verify", "line"),
    [(b"no matrix", True, "md5"), (b"no matrix", False, "not the MATLAB file"), (None, True, "is missing")],
)
def test_a_file_that_is_wrong_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, verify: bool, line: str
) -> None:
    def offline(url: str, path: Path) -> None:
        raise download.FetchError("no connection")

    monkeypatch.setattr(download, "fetch", offline)
    path = tmp_path / "metalearnbo" / "ag" / "1800_rrt.mat"
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        grasp(str(tmp_path), source="real", verify=verify).setup()
    said = str(raised.value)
    assert str(path) in said and line in said and "dataset.source=synthetic" in said and "\n" not in said


@pytest.mark.real_data
def test_the_real_scores_are_as_described(need: Callable[[str], Path]) -> None:
    path = need("metalearnbo/ag/1800_rrt.mat")
    data = grasp(str(path.parents[2]), source="real")
    data.setup()
    assert data.scores.shape == (1800, 162) and data.space.features.shape == (162, 58)
    assert float((data.scores == data.scores.min()).double().mean()) == pytest.approx(0.9855, abs=1e-4)
    assert len(torch.unique(data.scores, dim=0)) == 584
