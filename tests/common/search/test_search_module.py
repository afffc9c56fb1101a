"""The one loop of the black-box searches: budgets, curves, resume, failures, repeats, refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from search_toys import Bowl, Broken, Same, SaveAfter, fit, module, surrogate, task
from torch import Tensor

from common.base.errors import UserError
from common.base.objective import Space
from common.numerics.linalg import cholesky
from common.search import module as search_module
from common.search.evaluate import evaluate
from common.search.searcher import Observations, RandomSearch


@pytest.fixture(autouse=True)
def one_round_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "ROUND_SECONDS", 0.0)


def test_all_evaluations_are_made_and_the_last_round_is_smaller(tmp_path: Path) -> None:
    m = fit(module(), tmp_path)
    assert m.seen.x.shape == (1, 12, 2) and m.history["step"] == [3, 5, 7, 9, 11, 12]
    assert m.results()["evaluations"] == 12


def test_curves_are_what_their_definitions_say(tmp_path: Path) -> None:
    m = fit(module(repeats=3), tmp_path)
    f, y = m.f.numpy(), m.seen.y.numpy()
    results = m.results()
    assert results["best"] == pytest.approx(f.max(1).mean())
    assert results["simple_regret"] == pytest.approx(-f.max(1).mean())
    assert results["avg_regret"] == pytest.approx(-f.mean())
    answers = f[np.arange(3), y.argmax(1)]
    assert results["inference_regret"] == pytest.approx(-answers.mean())
    assert results["log10_regret"] == pytest.approx(np.log10(-answers).mean())
    assert results["simple_regret_sem"] == pytest.approx(f.max(1).std(ddof=1) / 3**0.5)
    half = 1.96 * results["simple_regret_sem"]
    assert m.history["simple_regret_low"][-1] == pytest.approx(results["simple_regret"] - half)


def test_noise_has_the_standard_deviation_that_the_objective_says(tmp_path: Path) -> None:
    m = fit(module(evaluations=400, batch=100, repeats=5), tmp_path)
    assert float((m.seen.y - m.f).std()) == pytest.approx(0.1, rel=0.05)


def test_observations_are_left_in_the_runs_folder(tmp_path: Path) -> None:
    m = fit(module(repeats=2), tmp_path)
    kept = np.load(tmp_path / "observations.npz")
    assert {name: kept[name].shape for name in kept} == {"x": (2, 12, 2), "y": (2, 12), "f": (2, 12)}
    np.testing.assert_array_equal(kept["y"], m.seen.y)


def test_no_two_replicates_share_a_point_of_their_designs(tmp_path: Path) -> None:
    x = fit(module(initial=8, evaluations=8, repeats=20), tmp_path).seen.x
    assert len(x.reshape(-1, 2).unique(dim=0)) == 160
    # each is spread over the square as Sobol points are: one in each eighth
    for part in (x[..., 0], x[..., 1]):
        assert ((8 * part).floor().sort(1).values == torch.arange(8)).all()


def test_a_replicate_alone_is_the_same_as_in_a_batch(tmp_path: Path) -> None:
    together = fit(module(repeats=3), tmp_path)
    alone = fit(module(seed=2), tmp_path)
    assert torch.equal(together.seen.x[2], alone.seen.x[0])
    assert torch.equal(together.seen.y[2], alone.seen.y[0])


@pytest.mark.parametrize("step", [0, 1, 3])
def test_a_search_that_was_killed_goes_on_as_if_nothing_had_been(tmp_path: Path, step: int) -> None:
    whole = fit(module(repeats=2, design="uniform"), tmp_path)
    kept = tmp_path / "last.ckpt"
    fit(module(repeats=2, design="uniform"), tmp_path, save=SaveAfter(step, kept))
    resumed = fit(module(repeats=2, design="uniform"), tmp_path, resume=kept)
    assert torch.equal(whole.seen.x, resumed.seen.x) and torch.equal(whole.seen.y, resumed.seen.y)
    assert whole.history == resumed.history
    same = {k: v for k, v in whole.results().items() if k != "propose_seconds"}
    assert same == {k: v for k, v in resumed.results().items() if k != "propose_seconds"}


@pytest.mark.parametrize(("raises", "said"), [(False, "not finite"), (True, "ArithmeticError: the oven")])
def test_a_failed_evaluation_is_said_once_kept_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], raises: bool, said: str
) -> None:
    m = fit(module(Broken(raises), evaluations=20, batch=1), tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[broken]")]
    assert len(lines) == 1 and said in lines[0]
    failed = int(m.seen.y.isnan().sum())
    assert 0 < failed < 20 and m.results()["failed_evaluations"] == failed
    assert m.seen.y.shape == (1, 20)
    assert all(np.isfinite(value) for value in m.results().values())
    assert m.results()["best"] == pytest.approx(float(m.f[m.f.isfinite()].max()))


def test_a_search_of_which_everything_failed_ends_with_one_line(tmp_path: Path) -> None:
    class Never(Bowl):
        def values(self, x: Tensor) -> Tensor:
            return torch.full(x.shape[:2], torch.nan, dtype=torch.float64)

    with pytest.raises(UserError, match="all 11 evaluations so far failed"):
        fit(module(Never()), tmp_path)


def test_a_repeated_point_is_evaluated_again_said_once_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    m = fit(module(method=Same(), initial=0), tmp_path)
    assert m.results()["repeated_points"] == 12
    assert capsys.readouterr().out.count("evaluation 1 repeats a point: it is evaluated again") == 1
    assert len(set(m.seen.y[0].tolist())) == 12


def test_a_proposal_outside_of_the_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"method=same proposed a point that is not in the space: 1\.5"):
        fit(module(method=Same(1.5)), tmp_path)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"evaluations": 0}, "paper.evaluations=0; valid: at least 1"),
        ({"batch": 0}, "paper.batch=0; valid: at least 1"),
        ({"repeats": -1}, "paper.repeats=-1; valid: at least 1"),
        ({"workers": 0}, "paper.workers=0; valid: at least 1"),
        ({"initial": 13}, "paper.initial=13; valid: 0 to paper.evaluations=12"),
    ],
)
def test_numbers_out_of_range_get_one_line(given: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        module(**given)


def test_an_evaluation_that_raises_takes_no_other_of_its_round_with_it() -> None:
    objective = Broken(raises=True)
    objective.draw([0])
    x = torch.tensor([[[0.1, 0.2], [0.9, 0.9], [0.3, 0.9]]], dtype=torch.float64)
    values, said = evaluate(objective, x, workers=1)
    expected = Bowl.values(objective, x)
    assert said == "ArithmeticError: the oven" and values.isnan().tolist() == [[False, True, False]]
    assert torch.equal(values[:, [0, 2]], expected[:, [0, 2]])


def test_worker_processes_find_the_same_values_and_name_the_first_failure() -> None:
    objective = Broken(raises=True)
    objective.draw([0, 1])
    x = torch.tensor([[[0.1, 0.2], [0.3, 0.9]], [[0.9, 0.5], [0.2, 0.2]]], dtype=torch.float64)
    values, said = evaluate(objective, x, workers=2)
    assert said is not None and said == "ArithmeticError: the oven"
    expected = Bowl.values(objective, x)
    expected[1, 0] = torch.nan
    torch.testing.assert_close(values, expected, equal_nan=True)


def test_random_search_evaluates_every_arm_once() -> None:
    arms = Space(torch.zeros(1).double(), torch.full((1,), 5.0).double(), torch.eye(6).double())
    searcher = RandomSearch()
    searcher.start(task(Bowl(space=arms), replicates=3, evaluations=6))
    seen = Observations(torch.zeros(3, 0, 1).double(), torch.zeros(3, 0).double())
    for q in (1, 3, 2):
        x = searcher.propose(seen, q)
        seen = seen.plus(x, torch.zeros(3, q).double())
    assert seen.x[..., 0].sort(1).values.tolist() == [[0, 1, 2, 3, 4, 5]] * 3


def test_the_best_of_the_observations_passes_over_failures() -> None:
    x = torch.arange(6, dtype=torch.float64).reshape(2, 3, 1)
    y = torch.tensor([[1.0, torch.nan, 3.0], [torch.nan, torch.nan, torch.nan]]).double()
    assert Observations(x, y).best().tolist() == [[2.0], [3.0]]


def test_a_singular_covariance_gets_the_least_jitter_and_a_regular_one_none() -> None:
    twice = torch.tensor([[1.0, 1.0], [1.0, 1.0]]).double()
    regular = torch.tensor([[2.0, 1.0], [1.0, 2.0]]).double()
    L = cholesky(torch.stack([twice, regular]), "K")
    product = L @ L.mT
    torch.testing.assert_close(product[1], regular, rtol=0, atol=1e-15)
    assert float((product[0] - twice).abs().max()) <= 1.1e-8


def test_the_jitter_is_in_units_of_the_covariance() -> None:
    twice = torch.tensor([[1.0, 1.0], [1.0, 1.0]]).double()
    expected = cholesky(twice, "K")
    for exponent in (-80, -26, 26, 80):
        assert torch.equal(cholesky(twice * 2.0**exponent, "K"), expected * 2.0 ** (exponent / 2))
    assert cholesky(torch.zeros(3, 0, 0).double(), "K").shape == (3, 0, 0)


@pytest.mark.parametrize(
    ("K", "line"),
    [
        ([[1.0, torch.nan], [torch.nan, 1.0]], "K has entries that are not finite"),
        ([[-1.0]], "K is singular"),
    ],
)
def test_what_is_no_covariance_gets_one_line(K: list[list[float]], line: str) -> None:
    with pytest.raises(UserError, match=line):
        cholesky(torch.tensor(K, dtype=torch.float64), "K")


@pytest.mark.parametrize(
    ("groups", "parts"),
    [
        ("full", [[0, 1, 2]]),
        ("one_dim", [[0], [1], [2]]),
        ("chain", [[0, 1], [1, 2]]),
        ([[0, 2], [1]], [[0, 2], [1]]),
    ],
)
def test_groups_are_lists_of_coordinates(groups: Any, parts: list[list[int]]) -> None:
    assert surrogate(3, groups=groups).parts == parts


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"groups": "pairs"}, "model.groups=pairs; valid: full, one_dim, chain"),
        ({"groups": [[3]]}, "numbers 0 to 2"),
        ({"lengthscale": 0.0}, "model.lengthscale=0.0; valid"),
        ({"lengthscale": [1.0, 2.0]}, "model.lengthscale has 2 numbers; valid: one, or 3"),
        ({"noise": -1.0}, "model.noise=-1.0; valid"),
        ({"classes": 10}, "a surrogate models an objective"),
    ],
)
def test_a_surrogate_out_of_range_gets_one_line(given: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as raised:
        surrogate(3, **given)
    assert line in str(raised.value)
