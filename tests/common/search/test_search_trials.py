"""Trials: nothing lost by a kill, a free worker gets the next proposal, the best of each rung go on."""

import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from search_toys import Bowl, SaveAfter, fit, surrogate, task
from torch import Tensor

from common.base.crew import Crew, Measured
from common.base.errors import UserError
from common.base.objective import Coordinate, Space
from common.search.halving import check_rungs, promoted, told
from common.search.peers import SobolSearch, TPESearch
from common.search.searcher import Observations, RandomSearch, Searcher
from common.search.trial_loop import standardised
from common.search.trial_search import TrialSearchModule
from common.search.trials import Trial, Trials
from papers.maxacq.practical import PracticalSearch


class Killed(Exception):
    """What a search is stopped by in these tests."""


class Slow(Bowl):
    """A bowl whose values at a share s of the length are 1 / s too low, and which a crew evaluates."""

    LONG: ClassVar = True

    def __init__(self, rungs: tuple[float, ...] = (), fails: bool = False) -> None:
        super().__init__(noise=0.0)
        self.rungs, self.fails = check_rungs(rungs), fails
        self.started: list[tuple[int, int, tuple[float, ...], float]] = []

    def crew(self, size: int) -> Crew:
        return Pretended(self, size)


class Pretended(Crew):
    """Workers whose evaluation t takes as long as the t-th digit of pi."""

    DIGITS = (3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9)

    def __init__(self, objective: Slow, size: int) -> None:
        self.objective, self.size, self.now = objective, size, 0
        self.under_way: list[tuple[int, Measured]] = []
        self.closed = False

    def start(self, number: int, replicate: int, point: Tensor, share: float) -> None:
        assert len(self.under_way) < self.size
        self.objective.started.append((number, replicate, tuple(point.tolist()), share))
        value = -float((point - self.objective.centres[replicate]).square().sum()) - (1 / share - 1)
        measured = Measured(number, value, share)
        if self.objective.fails:
            measured = Measured(number, math.nan, 1.0, "it burns")
        self.under_way.append((self.now + self.DIGITS[number % len(self.DIGITS)], measured))

    def wait(self, seconds: float) -> list[Measured]:
        self.under_way.sort(key=lambda one: one[0])
        self.now, measured = self.under_way.pop(0)
        return [measured]

    def close(self) -> None:
        self.closed = True


SETTINGS: dict[str, Any] = {
    "seed": 0, "evaluations": 9, "initial": 4, "design": "sobol", "batch": 1, "repeats": 1, "workers": 1,
}  # fmt: skip


def module(data: Slow, method: Searcher | None = None, **given: Any) -> TrialSearchModule:
    fitted = {"lengthscale": None, "variance": None, "noise": None, "mean": None, "fit": "standardised"}
    method = method or PracticalSearch()
    return TrialSearchModule(data=data, model=surrogate(2, **fitted), method=method, **(SETTINGS | given))


def log(root: Path) -> Path:
    return root / "under_way" / "trials.jsonl"


@pytest.mark.parametrize("batch", [1, 3])
def test_a_search_that_is_killed_at_any_line_of_its_file_has_lost_nothing(tmp_path: Path, batch: int) -> None:
    whole = fit(module(Slow(), batch=batch), tmp_path / "whole")
    lines = log(tmp_path / "whole").read_bytes().splitlines(keepends=True)
    for count in (0, 2, 11, 22):
        root = tmp_path / str(count)
        log(root).parent.mkdir(parents=True)
        # the line that was being written is torn
        log(root).write_bytes(b"".join(lines[:count]) + lines[count][:7])
        before = Trials(log(root))
        done = [trial.number for trial in before.all if trial.values]
        m = fit(module(Slow(), batch=batch), root)
        assert isinstance(m.data, Slow)
        started = [number for number, *_ in m.data.started]
        assert sorted(started + done) == list(range(9)), "each is made once, those that had ended not again"
        known = len(before.all)
        assert [t.point for t in m.loop.trials.all[:known]] == [t.point for t in before.all]
        assert m.seen.x[:, :4].equal(whole.seen.x[:, :4]), "the initial design is not drawn again"
        assert len(m.seen.x[0].unique(dim=0)) == 9 and m.failed == 0
        assert len(m.history["step"]) == 9
        if batch == 1:
            assert m.seen.x.equal(whole.seen.x) and m.history == whole.history


@pytest.mark.parametrize("step", [1, 4])
def test_a_search_goes_on_from_a_checkpoint_that_is_behind_its_file(tmp_path: Path, step: int) -> None:
    kept = tmp_path / "last.ckpt"
    whole = fit(module(Slow()), tmp_path, save=SaveAfter(step, kept))
    again = fit(module(data := Slow()), tmp_path, resume=kept)
    assert again.history == whole.history and again.seen.x.equal(whole.seen.x)
    assert not data.started, "all had ended by the file"


def test_a_free_worker_gets_the_next_proposal_which_knows_of_those_under_way(tmp_path: Path) -> None:
    told_of: list[tuple[int, int]] = []

    class Watched(PracticalSearch):
        def propose(self, seen: Observations, q: int) -> Tensor:
            told_of.append((seen.count, 0 if seen.pending is None else seen.pending.shape[1]))
            return super().propose(seen, q)

    m = fit(module(Slow(), Watched(), batch=3), tmp_path)
    # two others are under way whenever one is proposed
    assert told_of == [(2, 2), (3, 2), (4, 2), (5, 2), (6, 2)]
    assert float(-m.f.max()) < 0.05


def test_pending_points_keep_the_next_one_away_from_them() -> None:
    searcher = PracticalSearch()
    given = task(Bowl(noise=0.0), replicates=1)
    searcher.start(given)
    x = torch.tensor([[[0.1, 0.1], [0.9, 0.9], [0.2, 0.8], [0.6, 0.4]]], dtype=torch.float64)
    seen = Observations(x, given.objective.values(x))
    alone = searcher.propose(seen, 1)
    other = searcher.propose(Observations(seen.x, seen.y, alone), 1)
    assert float((alone - other).norm()) > 0.05
    two = PracticalSearch()
    two.start(task(Bowl(noise=0.0), replicates=1))
    # as the second point of a batch would be, but for what is random
    torch.testing.assert_close(two.propose(seen, 2)[:, 1], other[:, 0], atol=0.02, rtol=0)


@pytest.mark.parametrize("searcher", [RandomSearch, SobolSearch, TPESearch])
def test_any_searcher_searches_by_trials_and_proposes_no_point_twice(
    tmp_path: Path, searcher: type[Searcher]
) -> None:
    m = fit(module(Slow(), searcher(), batch=2, initial=0), tmp_path)
    assert len(m.seen.x[0].unique(dim=0)) == 9 and m.results()["repeated_points"] == 0


def test_what_is_believed_of_pending_points_is_the_mean_of_the_observations() -> None:
    x = torch.zeros(1, 3, 2).double()
    seen = Observations(x, torch.tensor([[1.0, torch.nan, 3.0]]).double(), torch.ones(1, 2, 2).double())
    assert seen.believed().y[0, 3:].tolist() == [2.0, 2.0] and seen.believed().pending is None
    nothing = Observations(x[:, :0], x[:, :0, 0], torch.ones(1, 1, 2).double()).believed()
    assert nothing.count == 1 and bool(nothing.y.isnan().all())


def test_replicates_take_turns_and_are_those_that_they_are_alone(tmp_path: Path) -> None:
    both = fit(module(Slow(), repeats=2, evaluations=6), tmp_path / "both")
    alone = fit(module(Slow(), seed=1, evaluations=6), tmp_path / "alone")
    assert both.seen.x[1].equal(alone.seen.x[0])
    assert [trial.replicate for trial in both.loop.trials.all] == [0, 1] * 6
    found = both.conclusion()
    assert found["value"] == max(found["replicates"]) and len(found["replicates"]) == 2
    assert both.results()["best_sem"] > 0


def test_only_the_best_of_each_rung_go_on_and_what_was_spent_is_counted(tmp_path: Path) -> None:
    m = fit(module(Slow((1 / 9, 1 / 3)), RandomSearch(), evaluations=18, batch=2), tmp_path)
    trials = m.loop.trials.all
    shares = sorted((trial.share for trial in trials), reverse=True)
    assert len(trials) == 18 and shares.count(1.0) == 2 and 6 <= sum(share > 0.2 for share in shares) <= 9
    results = m.results()
    assert results["trainings"] == pytest.approx(sum(shares)) and results["trainings"] < 9
    assert results["stopped_early"] == 16 and results["failed_evaluations"] == 0
    assert m.history["step"][-1] == pytest.approx(sum(shares))
    ranked = sorted(trials, key=lambda trial: -trial.values[1 / 9])
    assert ranked[0].whole, "the best at the first rung is among those that were trained in full"
    assert m.conclusion()["number"] == max((t for t in trials if t.whole), key=lambda t: t.value).number


def test_a_search_with_rungs_has_an_answer_however_few_its_trials_are(tmp_path: Path) -> None:
    m = fit(module(Slow((1 / 9, 1 / 3)), evaluations=2, initial=1), tmp_path)
    assert sum(trial.whole for trial in m.loop.trials.all) == 1 and "words" in m.conclusion()


def test_a_searcher_is_told_the_values_of_one_rung_and_the_others_are_pending() -> None:
    def trial(number: int, values: dict[float, float]) -> Trial:
        return Trial(number, 0, (0.1 * number,), values)

    trials = [trial(0, {0.1: 1.0, 0.5: 2.0}), trial(1, {0.1: 3.0}), trial(2, {0.1: 0.0})]
    assert told(trials, (0.1, 0.5, 1.0), enough=2) == 0.1
    assert told(trials, (0.1, 0.5, 1.0), enough=1) == 0.5
    assert promoted(trials, (0.1, 0.3, 1.0), last=False) == (trials[1], 0.3)
    assert promoted(trials[:1], (0.1, 0.5, 1.0), last=False) is None
    assert promoted(trials[:1], (0.1, 0.5, 1.0), last=True) == (trials[0], 1.0)


def test_a_fixed_surrogate_is_told_standardised_values() -> None:
    y = torch.tensor([2.0, torch.nan, 4.0, 9.0], dtype=torch.float64)
    for factor, shift in ((1.0, 0.0), (1e-8, 3.0), (1e8, -1e9)):
        found = standardised(factor * y + shift)
        known = found[found.isfinite()]
        assert float(known.mean()) == pytest.approx(0, abs=1e-6) and float(known.std()) == pytest.approx(1)
    assert standardised(y[:1]).tolist() == [0.0] and bool(standardised(y[1:2]).isnan().all())


def test_a_finite_space_is_tried_once_and_then_the_search_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Few(Slow):
        """Three choices, of which the second alone brings two more."""

        def __init__(self) -> None:
            super().__init__()
            three, two = (1 / 6, 0.5, 5 / 6), (0.25, 0.75)
            coordinates = (Coordinate(three, False), Coordinate(two, only_if=(0, 1)))
            self.space = Space(self.space.lower, self.space.upper, None, coordinates)

    assert Few().space.size() == 4 and Slow().space.size() is None
    m = fit(module(Few(), batch=2), tmp_path)
    assert m.seen.x.shape == (1, 4, 2) and len(m.seen.x[0].unique(dim=0)) == 4
    assert "all 4 settings that there are were tried" in capsys.readouterr().out
    # random search repeats some first, each replicate its own
    m = fit(module(Few(), RandomSearch(), repeats=3, evaluations=200, initial=0), tmp_path / "random")
    assert m.conclusion()["value"] == max(m.conclusion()["replicates"])


def test_what_cannot_be_written_is_said_by_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "under_way").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="under_way"):
        Trials(log(tmp_path)).propose(0, [0.5])


def test_a_failed_trial_is_said_once_with_its_reason_and_when_all_fail_the_search_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="all 9 trials failed, the first with: it burns"):
        fit(module(data := Slow(fails=True)), tmp_path)
    assert capsys.readouterr().out.count("trial 1 failed (it burns)") == 1
    # the reason being mended, the same command begins anew
    assert not log(tmp_path).exists() and len(data.started) == 9
    assert fit(module(Slow()), tmp_path).failed == 0


def test_a_crew_is_sent_home_when_a_search_is_interrupted(tmp_path: Path) -> None:
    class Interrupted(PracticalSearch):
        def propose(self, seen: Observations, q: int) -> Tensor:
            raise Killed

    m = module(Slow(), Interrupted())
    with pytest.raises(Killed):
        fit(m, tmp_path)
    assert isinstance(m.crew, Pretended) and m.crew.closed


@pytest.mark.parametrize("rungs", [(0.0,), (0.5, 0.5), (0.3, 0.2), (1.0,), (-1.0,), (math.nan,)])
def test_rungs_that_do_not_ascend_get_one_line(rungs: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="valid: ascending shares between 0 and 1"):
        check_rungs(rungs)
