"""The LightningModule: results, curves, the picture, resume, refusals; rows and claims that can be built."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
from saddle_toys import KIND, b1, b2, ball, box, framework, simplex, stochastic

from common.base.errors import UserError
from common.claims.claims import load_claims
from common.runs.check import check_config
from common.runs.compose import compose
from common.runs.runner import build
from common.tables.tables import runnable
from papers.saddle.baselines import PerturbedProjectedGradient
from papers.saddle.module import SaddleModule
from papers.saddle.pictures import picture, pictures
from papers.saddle.problems import MotzkinStraus

SETTINGS = {
    "seed": 0, "eps": 0.125, "gamma": 0.25, "max_iterations": 20_000, "start": None, "start_offset": 0.0,
    "L": None, "M": None, "D": None,
}  # fmt: skip


def module(**given: Any) -> SaddleModule:
    parts = {
        "data": given.pop("data", b1()), "model": given.pop("model", ball(2, 2.0)),
        "method": given.pop("method", None) or framework(),
    }  # fmt: skip
    return SaddleModule(**parts, **(SETTINGS | given))


class SaveAfter(pl.Callback):
    """Saves a checkpoint between two rounds, as the runner does."""

    def __init__(self, rounds: int, path: Path) -> None:
        self.rounds, self.path = rounds, path

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *rest: Any) -> None:
        if rest[-1] == self.rounds:
            assert isinstance(module, SaddleModule) and not module.done
            trainer.save_checkpoint(self.path)


def fit(m: SaddleModule, root: Path, save: SaveAfter | None = None, resume: Path | None = None) -> None:
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False, default_root_dir=root,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[save] if save else [],
    )  # fmt: skip
    trainer.fit(m, ckpt_path=resume, weights_only=True)


def test_a_run_reports_counts_certificate_and_the_least_fall_over_the_promised(tmp_path: Path) -> None:
    m = module()
    fit(m, tmp_path)
    results = m.results()
    assert (results["first_order_steps"], results["second_order_steps"]) == (841, 102)
    assert results["iterations"] == 943 and results["returned"] == results["certified"] == 1.0
    assert results["gap"] == pytest.approx(results["f_final"] + 0.25)
    assert results["decrease_ratio"] >= 1
    assert results["iterations_over_bound"] == pytest.approx(943 / results["iteration_bound"])
    assert results["rho_worst"] == 1.0 and results["solver_failures"] == 0
    assert results["fw_gap"] <= 0.125 and results["qp_lower_bound"] >= -0.25
    assert (results["smoothness"], results["hessian_lipschitz"], results["diameter"]) == (11, 12, 4)
    assert results["oracle_seconds"] > 0


def test_curves_are_thinned_and_end_at_the_last_point(tmp_path: Path) -> None:
    m = module()
    fit(m, tmp_path)
    steps = m.history["step"]
    assert steps[0] == 0 and steps[-1] == 943 and steps == sorted(steps)
    assert 100 < len(steps) < 300
    assert [m.history["x1"][-1], m.history["x2"][-1]] == m.results()["x_final"]


def test_a_problem_in_the_plane_leaves_a_picture_in_the_runs_folder(tmp_path: Path) -> None:
    fit(module(), tmp_path)
    root = ET.fromstring((tmp_path / "picture.svg").read_text())
    assert root.tag.endswith("svg")
    text = "".join(root.itertext())
    for word in ("saddle", "path", "start", "end", "the ball", "minimum", "943"):
        assert word in text


def test_a_problem_in_more_dimensions_leaves_none(tmp_path: Path) -> None:
    fit(module(data=b2(), model=ball(5)), tmp_path)
    assert not (tmp_path / "picture.svg").exists()


def test_the_picture_of_a_result_is_the_one_of_the_run(tmp_path: Path) -> None:
    config, request = compose(["paper=saddle", "dataset=b7", "method=escape/framework_linesearch"])
    m = build(config, request)
    assert isinstance(m, SaddleModule)
    fit(m, tmp_path)
    settings = {
        "dataset": {"_target_": "papers.saddle.problems.LinearConstraint", "kind": KIND, "radius": 2.0},
        "model": {
            "_target_": "papers.saddle.sets.Polytope", "half_width": 2.0, "normals": None, "offsets": [0.0],
        },
    }  # fmt: skip
    choices = {"dataset": "b7", "model": "polytope", "method": "escape/framework_linesearch"}
    result = {"history": m.history, "config": settings, "choices": choices, "seed": 0}
    drawn = picture(result)
    assert drawn is not None
    assert drawn.replace("framework_linesearch", "Framework") == (tmp_path / "picture.svg").read_text()
    assert next(pictures([result]))[0] == "b7, polytope, framework_linesearch, seed 0"
    assert picture({"history": {"f": []}}) is None


@pytest.mark.parametrize("which", ["leq", "stochastic", "perturbed"])
def test_a_killed_and_resumed_run_is_bit_equal(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("papers.saddle.module.ROUND_SECONDS", 0.0)

    def make() -> SaddleModule:
        methods: dict[str, Any] = {
            "leq": framework(), "stochastic": stochastic(gradient_batch=20, hessian_batch=20),
            "perturbed": PerturbedProjectedGradient(eps=0.05, radius=0.05, patience=100, decrease=1e-3),
        }  # fmt: skip
        return module(method=methods[which], max_iterations=400)

    unbroken = make()
    fit(unbroken, tmp_path, save=SaveAfter(60, tmp_path / "last.ckpt"))
    second = make()
    fit(second, tmp_path, resume=tmp_path / "last.ckpt")
    assert second.method.k == unbroken.method.k > 100
    assert np.array_equal(second.method.x, unbroken.method.x)
    assert second.history == unbroken.history
    drop = {"oracle_seconds"}
    assert {k: v for k, v in second.results().items() if k not in drop} == {
        k: v for k, v in unbroken.results().items() if k not in drop
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"start": [3.0, 0.0]}, r"paper.start=\[3.0, 0.0\]: infeasible, outside of the ball by 1"),
        ({"start": [1.0]}, "paper.start has 1 numbers; valid: 2"),
        ({"start": "elsewhere"}, "paper.start=elsewhere; valid: null, a point"),
        ({"L": 0.0}, "paper.L=0.0; valid: a number > 0"),
        ({"M": -1.0}, "paper.M=-1.0"),
        ({"D": 0.0}, "paper.D=0.0"),
        ({"eps": 0.0}, "paper.eps=0.0"),
        ({"max_iterations": 0}, "paper.max_iterations=0"),
        ({"model": simplex(2)}, "dataset=b1 makes no sense over model=simplex"),
    ],
)
def test_bad_input_is_refused_in_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        module(**given)
    assert "\n" not in str(error.value)


def test_motzkin_straus_is_about_the_simplex_alone() -> None:
    data = MotzkinStraus(kind=KIND, radius=1.0, graph="cycle", dim=5, design_seed=0)
    with pytest.raises(UserError, match="b6 makes no sense over model=box"):
        module(data=data, model=box(5))


def test_a_start_moved_by_the_seed_stays_in_the_set() -> None:
    starts = [module(seed=seed, start_offset=5.0).x0 for seed in (0, 1)]
    assert all(ball(2, 2.0).contains(x) for x in starts) and not np.array_equal(*starts)


@pytest.mark.parametrize("start", ["blind_spot", "[0.5,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0]"])
def test_a_run_begins_where_its_words_say(start: str) -> None:
    config, request = compose(["paper=saddle", "dataset=b2", f"paper.start={start}"])
    made = build(config, request)
    assert isinstance(made, SaddleModule)
    # the problem's own start is 0
    assert np.linalg.norm(made.x0) == pytest.approx(1.0 if start == "blind_spot" else 0.5)


@pytest.mark.parametrize("entry", runnable("saddle"), ids=lambda entry: entry.row)
def test_every_row_of_the_tables_can_be_built(entry: Any) -> None:
    if "ellipsoids" in entry.row:
        pytest.importorskip("cvxpy")
    config, request = compose([f"entry={entry.name}", "scale=smoke"])
    check_config(config)
    assert isinstance(build(config, request), SaddleModule)


@pytest.mark.parametrize("claim", load_claims("saddle"), ids=lambda claim: claim.name)
def test_the_first_run_of_a_claim_can_be_built(claim: Any) -> None:
    config, request = compose(list(claim.all_runs()[0].words))
    check_config(config)
    assert isinstance(build(config, request), SaddleModule)
