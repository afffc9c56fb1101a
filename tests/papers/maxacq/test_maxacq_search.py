"""Whole searches: resume, failures, repeats, options, refusals; the other measurements of the paper."""

from pathlib import Path
from typing import Any

import pytest
import torch
from maxacq_toys import ALL, METHOD, module, search
from search_toys import Bowl, Broken, SaveAfter, fit, surrogate, task

from common.base.errors import UserError
from common.base.module import PaperModule
from common.base.objective import Space
from common.data.functions.no_data import NoData
from common.data.functions.synthetic import GPDraws
from common.search import module as search_module
from common.search.searcher import Observations
from papers.maxacq.module import InnerModule, RuntimeModule, make_module
from papers.maxacq.searcher import AcquisitionSearch


@pytest.fixture(autouse=True)
def one_round_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "ROUND_SECONDS", 0.0)


def test_a_search_comes_closer_than_its_initial_points(tmp_path: Path) -> None:
    m = fit(module(Bowl(noise=0.01), search(evaluations=128), repeats=2, evaluations=13), tmp_path)
    assert (m.f[:, 3:].max(1).values > m.f[:, :3].max(1).values).all()
    assert m.results()["simple_regret"] < 0.01


@pytest.mark.parametrize(
    ("settings", "how"),
    [
        ({"maximiser": "adam"}, "fixed"),
        ({"maximiser": "adam", "form": "incremental"}, "map"),
        ({"maximiser": "cma", "form": "joint", "evaluations": 16}, "fixed"),
        ({"maximiser": "random", "name": "kg"}, "fixed"),
        ({"maximiser": "botorch_lbfgs", "name": "ucb"}, "ml"),
        ({"maximiser": "adam", "name": "es", "answer": "posterior_mean", "evaluations": 12}, "map"),
    ],
)
def test_a_search_that_was_killed_goes_on_as_if_nothing_had_been(
    tmp_path: Path, settings: dict[str, Any], how: str
) -> None:
    def made() -> Any:
        return module(Bowl(), search(**settings), how, repeats=2, evaluations=9)

    # that saving changes nothing is shown with the common search
    kept = tmp_path / "last.ckpt"
    whole = fit(made(), tmp_path, save=SaveAfter(1, kept))
    resumed = fit(made(), tmp_path, resume=kept)
    assert torch.equal(whole.seen.x, resumed.seen.x) and torch.equal(whole.seen.y, resumed.seen.y)
    assert whole.history == resumed.history


def test_a_replicate_alone_takes_the_same_path(tmp_path: Path) -> None:
    together = fit(module(Bowl(), search(), repeats=3, evaluations=7), tmp_path)
    alone = fit(module(Bowl(), search(), seed=2, evaluations=7), tmp_path)
    torch.testing.assert_close(together.seen.x[2], alone.seen.x[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["fixed", "map"])
def test_failed_evaluations_are_kept_and_the_search_goes_on_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    m = fit(module(Broken(raises=False), search(), how, repeats=2, evaluations=11), tmp_path)
    failed = m.seen.y.isnan()
    assert failed.any() and not failed.all() and m.seen.y.shape == (2, 11)
    assert m.seen.x.isfinite().all()
    assert "it stays in the record, the surrogate goes without it" in capsys.readouterr().out


def test_a_search_of_which_everything_has_failed_so_far_still_proposes() -> None:
    searcher = search()
    searcher.start(task(Bowl()))
    x = torch.rand(2, 3, 2, dtype=torch.float64)
    nothing = Observations(x, torch.full((2, 3), torch.nan, dtype=torch.float64))
    assert searcher.propose(nothing, 2).isfinite().all()


@pytest.mark.parametrize("how", ["fixed", "map"])
def test_repeated_points_without_noise_do_not_stop_a_search(how: str) -> None:
    searcher = search()
    objective = Bowl(noise=0.0)
    objective.draw([0, 1])
    given = task(objective)
    given.__dict__["surrogate"] = surrogate(2, kernel="matern52", noise=0.0, fit=how)
    searcher.start(given)
    x = torch.full((2, 4, 2), 0.5, dtype=torch.float64)
    x[:, 3] = 0.2
    x_new = searcher.propose(Observations(x, objective.values(x)), 3)
    assert x_new.isfinite().all() and (x_new >= 0).all() and (x_new <= 1).all()


@pytest.mark.parametrize("form", ["joint", "greedy", "incremental"])
def test_points_that_are_under_way_are_kept_away_from_in_every_form(form: str) -> None:
    searcher = search(form=form, evaluations=256)
    given = task(Bowl(noise=0.01), replicates=1)
    searcher.start(given)
    x = torch.tensor([[[0.1, 0.1], [0.9, 0.9], [0.2, 0.8], [0.6, 0.4]]], dtype=torch.float64)
    seen = Observations(x, given.objective.values(x))
    alone = searcher.propose(seen, 1)
    again = searcher.propose(seen, 1)
    other = searcher.propose(Observations(x, seen.y, alone), 1)
    assert float((alone - again).norm()) < 0.02 < 0.05 < float((alone - other).norm())


def test_a_search_may_begin_without_initial_points(tmp_path: Path) -> None:
    m = fit(module(Bowl(), search(), initial=0, evaluations=4), tmp_path)
    assert m.seen.count == 4


def test_points_are_proposed_in_the_objectives_own_box(tmp_path: Path) -> None:
    wide = Space(torch.tensor([-5.0, 10.0]).double(), torch.tensor([5.0, 30.0]).double())
    searcher = search(evaluations=128)
    searcher.start(task(Bowl(space=wide)))
    # units: the lengthscale is the objective's
    torch.testing.assert_close(searcher.prior.lengthscale[0], 0.3 / torch.tensor([10.0, 20.0]).double())
    x = searcher.propose(
        Observations(wide.scaled(torch.rand(2, 3, 2).double()), torch.rand(2, 3).double()), 2
    )
    assert (x >= wide.lower).all() and (x <= wide.upper).all() and (x[..., 1] >= 10).all()


def test_the_answer_by_posterior_mean_is_near_the_maximum_of_a_smooth_function() -> None:
    searcher = search(answer="posterior_mean")
    objective = Bowl(noise=0.01)
    given = task(objective)
    given.__dict__["surrogate"] = surrogate(2, kernel="se", noise=0.01, lengthscale=0.7)
    searcher.start(given)
    x = torch.rand(2, 40, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    answer = searcher.answer(Observations(x, objective.values(x)))
    torch.testing.assert_close(answer, objective.centres, rtol=0, atol=0.05)


@pytest.mark.parametrize("seconds", [0.05, None])
def test_seconds_may_be_the_budget(tmp_path: Path, seconds: float | None) -> None:
    m = fit(module(Bowl(), search(budget="seconds", seconds=seconds), evaluations=5), tmp_path)
    assert m.seen.count == 5


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"evaluations": 0}, "method.evaluations=0; valid: at least 1"),
        ({"starts": 0}, "method.starts=0; valid: at least 1"),
        ({"lr": 0.0}, "method.lr=0.0; valid: greater than 0"),
        ({"seconds": 1.0}, "method.seconds=1.0 needs method.budget=seconds"),
        (
            {"name": "ucb", "form": "incremental"},
            "method.form=incremental is a form of method=acquisition/ei",
        ),
        ({"maximiser": "cma", "starts": 2}, "method.starts=2; valid: at least 4"),
    ],
)
def test_settings_out_of_range_get_one_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        search(**settings)


def test_a_gradient_of_the_exact_probability_of_improvement_is_refused() -> None:
    acquisition = type(ALL["pi"])(tau=0.0)  # type: ignore[call-arg]
    with pytest.raises(UserError, match=r"method.maximiser=adam needs a gradient"):
        AcquisitionSearch(**({"acquisition": acquisition} | METHOD))


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ({"kernel": "laplace"}, "model.kernel=laplace: method=acquisition/... takes matern52, se"),
        ({"groups": "one_dim"}, "model.groups: method=acquisition/... takes full"),
        (
            {"lengthscale": None},
            "dataset=bowl does not say its lengthscale: give model.lengthscale or model.fit=map",
        ),
    ],
)
def test_a_prior_that_cannot_be_used_gets_one_line(model: dict[str, Any], line: str) -> None:
    given = task(Bowl())
    given.__dict__["surrogate"] = surrogate(2, **model)
    with pytest.raises(UserError) as raised:
        search().start(given)
    assert line in str(raised.value)


def test_arms_are_refused() -> None:
    arms = Space(torch.zeros(1).double(), torch.full((1,), 5.0).double(), torch.eye(6).double())
    with pytest.raises(UserError, match="needs a box"):
        search().start(task(Bowl(space=arms)))


def measured(measure: Any, data: Any, method: Any, **settings: Any) -> PaperModule:
    known = {"lengthscale": 0.4, "variance": 1.0, "noise": 0.03, "mean": 0.0}
    given = {
        "seed": 0, "evaluations": 8, "initial": 3, "design": "sobol", "batch": 2, "repeats": 2, "workers": 1,
        "observations": [3, 5],
    }  # fmt: skip
    model = surrogate(data.space.dim, kernel="matern52", **known)
    return make_module(data=data, model=model, method=method, measure=measure, **(given | settings))


@pytest.mark.parametrize("name", ALL)
def test_the_myopic_maximal_acquisitions_are_those_of_table_1(tmp_path: Path, name: str) -> None:
    m = measured("definition", NoData(kind="no_data", dim=2), search(name=name))
    fit(m, tmp_path)  # type: ignore[arg-type]
    assert m.results()["myopic_maximal"] == float(name in ("ei", "pi", "sr", "ucb"))


def draws() -> GPDraws:
    return GPDraws(
        kind="objective",
        dim=2,
        noise=0.03,
        lengthscale=None,
        features=64,
        optimum_points=64,
        optimum_starts=2,
    )


def test_runtimes_are_of_each_number_of_observations(tmp_path: Path) -> None:
    m = measured("runtime", draws(), search())
    fit(m, tmp_path)  # type: ignore[arg-type]
    assert isinstance(m, RuntimeModule) and m.history["step"] == [3, 5]
    assert set(m.results()) == {"cpu_seconds_at_3", "cpu_seconds_at_5"} and min(m.results().values()) > 0


def test_one_round_alone_is_compared_with_a_reference(tmp_path: Path) -> None:
    m = measured("inner", draws(), search(maximiser="random", form="joint", evaluations=96), batch=3)
    fit(m, tmp_path)  # type: ignore[arg-type]
    assert isinstance(m, InnerModule) and 0 < m.results()["share"] < 1.1
    torch.testing.assert_close(m.results()["value"], float(m.values.mean()))


def test_other_measurements_need_an_acquisition() -> None:
    from common.search.searcher import RandomSearch

    with pytest.raises(UserError, match=r"paper.measure=runtime needs method=acquisition/"):
        measured("runtime", draws(), RandomSearch())
    with pytest.raises(UserError, match="times ei, pi, sr and ucb"):
        measured("runtime", draws(), search(name="kg"))
