"""The map of the latent space against scikit-learn, its counts by hand, and the picture of it."""

from itertools import permutations
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from papers.pmf_automl.latent_map import MOST_POINTS, alike, described, kinds, plane
from papers.pmf_automl.pictures import picture


def points(count: int = 30, dim: int = 5) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_plane_is_scikit_learns_first_two_components_in_units_of_the_lengthscales() -> None:
    lengthscale = torch.tensor([0.5, 1.0, 2.0, 3.0, 7.0]).double()
    found = plane(points(), lengthscale).numpy()
    peer = PCA(2).fit_transform((points() / lengthscale).numpy())
    for own, other in zip(found.T, peer.T, strict=True):
        np.testing.assert_allclose(own * np.sign(own @ other), other, atol=1e-10)


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_the_unit_of_the_latent_space_changes_nothing(unit: float) -> None:
    lengthscale = torch.ones(5, dtype=torch.float64)
    found = plane(unit * points(), unit * lengthscale)
    torch.testing.assert_close(found, plane(points(), lengthscale), rtol=1e-9, atol=1e-9)


def test_one_latent_dimension_is_a_line() -> None:
    found = plane(points(dim=1), torch.ones(1, dtype=torch.float64))
    assert found.shape == (30, 2) and not found[:, 1].any()


def test_chance_is_the_mean_over_all_ways_to_deal_the_kinds() -> None:
    X, dealt = points(5, 2), ["a", "a", "a", "b", "b"]
    found = [alike(X, order) for order in permutations(dealt)]
    assert float(np.mean([share for share, _ in found])) == pytest.approx(found[0][1])


def test_clusters_of_one_kind_each_are_alike_and_mixed_pairs_are_not() -> None:
    near = torch.tensor([[0.0], [0.1], [5.0], [5.1]]).double()
    assert alike(near, ["a", "a", "b", "b"])[0] == 1.0
    assert alike(near, ["a", "b", "a", "b"])[0] == 0.0


def test_kinds_are_algorithms_or_first_words_or_unknown() -> None:
    assert kinds(["x", "y"], [{"algorithm": "RF"}, {"algorithm": "MLP"}]) == ["RF", "MLP"]
    assert kinds(["RF depth=1", "RF depth=2", "MLP", "MLP 3"], None) == ["RF", "RF", "MLP", "MLP"]
    assert kinds(["17", "18", "19"], None) is None
    many = kinds([f"K{i} {j}" for i in range(15) for j in range(15 - i)], None)
    assert many is not None and len(set(many)) == 13 and many[0] == "K0" and many[-1] == "other"


@pytest.mark.parametrize("known", [True, False])
def test_the_picture_shows_each_pipeline_and_says_the_same_twice(known: bool) -> None:
    count = MOST_POINTS + 200
    names = [f"{'RF' if i % 2 and known else i} a={i}" for i in range(count)]
    score = torch.linspace(0, 1, count, dtype=torch.float64)
    score[0] = torch.nan
    X = points(count, 3)
    metrics = described(
        X, torch.ones(3).double(), X, score, names, [{"algorithm": n[:1]} for n in names] if known else None
    )
    assert len(metrics["latent_x"]) == MOST_POINTS and metrics["latent_score"][0] is None
    drawn = [picture({"metrics": metrics}) for _ in range(2)]
    assert drawn[0] is not None and drawn[0] == drawn[1]
    text = "".join(ElementTree.fromstring(drawn[0]).itertext())
    assert ("algorithm; the nearest" in text) == known and "mean score" in text


def test_a_run_without_latent_points_has_no_picture() -> None:
    assert picture({"metrics": {"regret": 0.1}}) is None
