"""Warm starts, baselines and the whole search, on matrices small enough to follow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pmf_automl_toys import settings
from scipy.stats import rankdata

from common.base.errors import UserError
from papers.pmf_automl.baselines import Factorisation, Oboe, Portfolio, als_factors, pca_factors
from papers.pmf_automl.fmlp import FMLP, LATENT, Ensemble
from papers.pmf_automl.module import AutoMLModule, Compared
from papers.pmf_automl.pmf import PMF
from papers.pmf_automl.recommender import Chance, Competitor, Problem
from papers.pmf_automl.scores import Oboe219, OpenML553, OwnScores, flat, numbers_of, parse_scores
from papers.pmf_automl.warm_start import in_units, nearest, warm_start

DATA = Path("data")
WARM: dict[str, Any] = {"warm_start": "raw", "neighbours": 3, "initial": 2}


def made_up(missing: float = 0.0) -> Oboe219:
    data = Oboe219(kind="objective", source="synthetic", data_dir="nowhere", missing=missing)
    data.setup()
    data.draw([0, 1, 2])
    return data


def pmf(epochs: int = 3) -> PMF:
    return PMF(
        optimizer="adam", lr=0.05, epochs=epochs, columns=None, rows=1000, row_scaling=False,
        predictive_variance="official", xi=0.01, **WARM,
    )  # fmt: skip


def all_methods() -> dict[str, Competitor]:
    return {
        "pmf": pmf(),
        "pca": Factorisation(solver="pca", ridge=0.1, sweeps=2, **WARM),
        "als": Factorisation(solver="als", ridge=0.1, sweeps=2, **WARM),
        "oboe": Oboe(rank=None),
        "portfolio": Portfolio(),
        "fmlp": FMLP(networks=2, hidden=3, steps=5, batch=8, refinements=1, xi=0.01, **WARM),
        "random": Chance(evaluations=2),
    }


def started(method: Competitor, data: Oboe219, iterations: int = 6) -> Competitor:
    method.start(Problem(data, settings(4), 0, iterations, torch.device("cpu")))
    while method.taken < method.steps:
        method.train(1e9)
    return method


def test_the_warm_start_is_the_best_mean_rank_on_the_nearest_data_sets() -> None:
    random = np.random.default_rng(0)
    scores, features = random.uniform(size=(9, 6)), random.normal(size=(6, 4)) * [1, 1, 1e4, 1]
    scores[3, :] = np.nan
    features[2, 1] = np.nan
    new = features[1] + 0.01
    near = nearest(features, new, 3)
    distance = np.abs(features - new).sum(1)
    assert near.tolist() == sorted([0, 1, 3, 4, 5], key=lambda d: distance[d])[:3]
    ranks = np.mean([rankdata(np.nan_to_num(scores[:, d], nan=-1)) for d in near], 0)
    expected = [i for i in np.argsort(-ranks) if i != 3][:4]
    assert warm_start(scores, features, new, 3, 4).tolist() == expected


def test_fewer_pipelines_than_asked_for_are_taken_where_fewer_are_observed() -> None:
    scores = np.full((4, 2), np.nan)
    scores[1] = [0.2, 0.4]
    assert warm_start(scores, np.zeros((2, 1)), np.zeros(1), 2, 5).tolist() == [1]


def test_units_make_the_distance_one_of_standard_deviations_or_of_ranks() -> None:
    train = np.array([[1.0, 7.0], [2.0, 7.0], [1e6, 7.0]])
    standardised, _ = in_units(train, train, "standardised")
    np.testing.assert_allclose(standardised[:, 0].std(), 1.0)
    assert not standardised[:, 1].any()
    ranks, new = in_units(train, np.array([[1.5, 7.0]]), "ranks")
    np.testing.assert_allclose(ranks[:, 0], [1 / 6, 1 / 2, 5 / 6])
    np.testing.assert_allclose(new, [[1 / 3, 1 / 2]])
    scaled, _ = in_units(train * 1e-8, train * 1e-8, "ranks")
    np.testing.assert_allclose(scaled, ranks)


@pytest.mark.parametrize("name", list(all_methods()))
def test_regret_never_rises_no_pipeline_comes_twice_and_a_resumed_search_is_the_same(name: str) -> None:
    data = made_up()
    whole = started(all_methods()[name], data)
    for _ in range(3):
        whole.iterate()
    again = all_methods()[name]
    again.start(Problem(data, settings(4), 0, 6, torch.device("cpu")))
    again.load_state_dict(whole.state_dict())
    for method in (whole, again):
        for _ in range(3):
            method.iterate()
    for r in range(3):
        best = [float(np.dot(*whole.outcomes(t)[r])) for t in range(1, 7)]
        assert best == [float(np.dot(*again.outcomes(t)[r])) for t in range(1, 7)]
        assert best == sorted(best)
    if hasattr(whole, "seen"):
        assert all(len(set(row.flatten().tolist())) == 6 for row in whole.seen.x)


def test_a_pipeline_without_a_score_on_a_data_set_is_never_chosen_after_the_warm_start() -> None:
    data = made_up()
    data.matrix.test[::2, 0] = np.nan
    data.draw([0])
    method = started(Portfolio(), data, 100)
    for _ in range(109):
        method.iterate()
    assert bool(method.seen.y.isfinite().all())  # type: ignore[attr-defined]
    assert set(method.seen.x.flatten().tolist()) == set(range(1, 219, 2))  # type: ignore[attr-defined]


def test_als_on_full_data_finds_the_plane_of_the_svd() -> None:
    random = np.random.default_rng(1)
    scores = random.normal(size=(20, 2)) @ random.normal(size=(2, 15)) + 3
    U, mean = pca_factors(scores, 2)
    V, _ = als_factors(scores, 2, 1e-9, 30)
    np.testing.assert_allclose(mean, scores.mean(1))
    projector = U @ np.linalg.pinv(U)
    np.testing.assert_allclose(V @ np.linalg.pinv(V), projector, atol=1e-6)


def test_factorised_units_are_the_sum_over_all_pairs() -> None:
    ensemble = Ensemble(2, 4, 3, torch.Generator().manual_seed(0)).double()
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    b = ensemble.b.unflatten(-1, (3, LATENT))
    for e in range(2):
        for row, point in enumerate(x):
            hidden = point @ ensemble.w[e] + ensemble.c[e, 0]
            for i in range(4):
                for j in range(i + 1, 4):
                    hidden = hidden + point[i] * point[j] * (b[e, i] * b[e, j]).sum(-1)
            expected = torch.relu(hidden) @ ensemble.out[e, :, 0] + ensemble.level[e, 0, 0]
            assert float(ensemble(x)[e, row].detach()) == pytest.approx(float(expected.detach()), rel=1e-10)


def test_settings_become_ranks_and_words() -> None:
    told = [
        flat({"a": "x", "h": {"C": 0.1, "n": None}}),
        flat({"a": "y", "h": {"C": 100.0, "n": [1, 2]}}),
        {"a": "x"},
    ]
    found = numbers_of(told)
    assert found[:, 0].tolist() == [1, 0, 1] and found[:, 2].tolist() == [0.5, 1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("p,a,b\nx,1,2\ny,3\n", "line 3 has 2 cells"),
        ("p,a,b\nx,1,two\n", "line 2, column 'b': 'two' is no number"),
        ("p,a,a\nx,1,2\n", "two data sets are named 'a'"),
        ("p,a,b\nx,1,2\nx,1,2\n", "two pipelines are named 'x'"),
        ("p\n", "it needs names"),
    ],
)
def test_a_broken_matrix_is_refused_by_its_line(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "own.csv").write_text(text)
    data = OwnScores(kind="objective", path=str(tmp_path / "own.csv"), test=[], better="higher", missing=0.0)
    with pytest.raises(UserError, match=line):
        data.setup()


def test_rows_without_any_score_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.csv").write_text("p,a,b,c\nx,1,2,3\nnever,,nan,\ny,2,1,\n")
    data = OwnScores(
        kind="objective", path=str(tmp_path / "own.csv"), test=["a"], better="lower", missing=0.0
    )
    data.setup()
    assert "1 rows without any score are left out: never" in capsys.readouterr().out
    assert data.matrix.test.tolist() == [[-1.0], [-2.0]] and data.matrix.pipelines == ("x", "y")
    with pytest.raises(UserError, match=r"dataset\.test=z: no such column"):
        OwnScores(
            kind="objective", path=str(tmp_path / "own.csv"), test=["z"], better="lower", missing=0.0
        ).setup()


def test_a_test_data_set_without_scores_and_an_infinite_score_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for row, value, line in ((slice(None), np.nan, "has no score at all"), (0, np.inf, "is infinite")):
        data = Oboe219(kind="objective", source="synthetic", data_dir="nowhere", missing=0.0)
        own = data.load()
        own.test[row, 0] = value
        monkeypatch.setattr(data, "load", lambda own=own: own)
        with pytest.raises(UserError, match=line):
            data.setup()


def test_too_many_iterations_or_data_sets_are_refused() -> None:
    for iterations, datasets, line in ((220, 2, "paper.iterations=220"), (5, 99, "paper.datasets=99")):
        data = Oboe219(kind="objective", source="synthetic", data_dir="nowhere", missing=0.0)
        module = AutoMLModule(
            data=data, model=settings(), method=Portfolio(), seed=0, iterations=iterations, datasets=datasets
        )
        module.setup("fit")
        with pytest.raises(UserError, match=line):
            module.on_fit_start()


def test_ranks_of_all_methods_sum_to_the_same_and_regret_is_none_once_all_is_tried() -> None:
    data = made_up()
    module = AutoMLModule(
        data=data,
        model=settings(4),
        method=Compared(methods=all_methods()),
        seed=0,
        iterations=219,
        datasets=2,
    )
    module.on_fit_start()
    for method in module.methods.values():
        while method.taken < method.steps:
            method.train(1e9)
        for _ in range(8):
            method.iterate()
    curves = module.curves(8)
    ranks = sum(series for name, series in curves.items() if name.startswith("mean_rank"))
    np.testing.assert_allclose(ranks, 7 * 8 / 2)
    assert all((series >= 0).all() for name, series in curves.items() if name.startswith("regret"))
    np.testing.assert_allclose(
        module.best - module.methods["random"].outcomes(110)[0][0][0], module.best - module.best[0]
    )


def test_parsed_scores_are_numbers_with_gaps() -> None:
    pipelines, names, scores = parse_scores("p,a,b\nx,1,\ny, ,0.5\n")
    assert (pipelines, names) == (("x", "y"), ("a", "b"))
    np.testing.assert_array_equal(scores, [[1, np.nan], [np.nan, 0.5]])


@pytest.mark.real_data
@pytest.mark.skipif(not (DATA / "oboe" / "error_matrix.csv").exists(), reason="no data/oboe/error_matrix.csv")
def test_the_stand_in_has_the_papers_split_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    data = OpenML553(kind="objective", source="stand_in", data_dir=str(DATA), missing=0.5, compared=True)
    data.setup()
    assert "stands in" in capsys.readouterr().out
    assert data.matrix.train.shape == (219, 266) and data.matrix.test.shape == (219, 52)
    assert data.matrix.train_features.shape == (266, 46)
    assert np.isnan(data.matrix.train).mean() == pytest.approx(0.5, abs=0.01)
    data.draw([0])
    assert float(data.optimum()[0]) == float(np.nanmax(data.matrix.test[:, 0]))
