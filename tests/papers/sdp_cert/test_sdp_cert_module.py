"""Runs of certification: verdicts, resume, the report, refusals; rows and claims that can be built."""

import json
import math
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from sdp_cert_toys import SaveAfter, fit, problem

from common.base.errors import UserError
from common.claims.claims import load_claims
from common.data.images.digits import Digits
from common.models.mlp import MLP
from common.runs.catalogue import all_entries
from common.runs.check import check_config
from common.runs.compose import compose
from common.runs.runner import execute
from common.tables.tables import runnable
from papers.sdp_cert.certifiers import (
    CROWN,
    IBP,
    LP,
    PGD,
    SDP,
    Certifier,
    Exact,
    Examples,
    NoCertifier,
    Sandwich,
)
from papers.sdp_cert.examples_page import page, sandwich
from papers.sdp_cert.module import CertifyModule
from papers.sdp_cert.verdicts import judge, summary

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

ATTACK = PGD(steps=10, step_size=0.2, restarts=1)
LINES = CROWN(slopes="adaptive", intermediate="interval")


def sdp(**changes: Any) -> SDP:
    options = {
        "linear_cut": False, "layerwise": False, "solver": "interior", "tolerance": 1e-4, "max_steps": 60,
        "intermediate": "interval", "attack": ATTACK, "linear": LINES,
    }  # fmt: skip
    return SDP(**(options | changes))


def digits(normalise: str = "unit_interval") -> Digits:
    return Digits(
        kind="image_classification", data_dir="none", seed=0, source="real", limit=None, validation=0.0,
        normalise=normalise, verify=True, batch_size=64, positive=None, augment="none",
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained() -> MLP:
    """A small network after a few seconds of training."""
    torch.manual_seed(0)
    model = MLP(shape=(1, 8, 8), classes=10, hidden=[12], activation="relu")
    data = digits()
    data.setup()
    inputs, targets = data.batch("train", slice(0, 1400), augment=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-3)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model


def module(model: torch.nn.Module, method: Certifier, **changes: Any) -> CertifyModule:
    options = {"seed": 0, "eps": 0.1, "clip_input": True, "examples": 12, "first": 0, "batch": 4}
    return CertifyModule(data=digits(), model=model, method=method, **(options | changes))


def examples_of(sizes: list[int], eps: float, seed: int, count: int) -> Examples:
    p = problem(sizes, eps, seed, examples=count)
    return Examples(network=p.network, x=p.x, labels=p.labels, box=p.box, eps=eps, seed=0)


def test_a_run_counts_wrong_refuted_and_open_images_and_gives_a_binomial_interval(
    trained: MLP, tmp_path: Path
) -> None:
    m = module(trained, sdp(), examples=20)
    fit(m, tmp_path)
    found, verdicts = m.results(), [one.verdict for one in m.judged]
    bad = sum(verdict != "certified" for verdict in verdicts)
    assert {"certified", "refuted"} <= set(verdicts)
    assert found["noncertified_error"] == 5 * bad == 100 - found["verified"]
    assert found["noncertified_low"] < found["noncertified_error"] < found["noncertified_high"]
    assert found["attack_error"] + found["open_fraction"] == pytest.approx(found["noncertified_error"])
    assert found["examples"] == 20 and found["solver_failures"] == 0
    assert m.history["step"][-1] == 20


def test_the_sdp_sees_only_what_attack_and_intervals_leave_open(trained: MLP, tmp_path: Path) -> None:
    m = module(trained, sdp(linear=IBP()), examples=20, eps=0.06)
    fit(m, tmp_path)
    solved = 0
    for one in m.judged:
        if one.verdict == "wrong":
            assert one.upper == one.lower == {}
            continue
        for cheap, bound in zip(one.upper["ibp"], one.upper.get("sdp", [math.nan] * 9), strict=True):
            refuted = max(one.lower["pgd"]) >= 0
            assert math.isnan(bound) == (cheap < 0 or refuted)
            solved += not math.isnan(bound)
    assert solved > 0


def test_a_wrong_clean_prediction_counts_as_not_certified_and_is_no_error() -> None:
    examples = examples_of([5, 6, 3], 0.01, 0, 6)
    wrong = (examples.labels + 1) % 3
    flipped = Examples(examples.network, examples.x, wrong, examples.box, examples.eps, 0)
    judged = judge(sdp(), flipped, list(range(6)))
    assert {one.verdict for one in judged} == {"wrong"}
    found = summary(judged, sdp())
    assert found["noncertified_error"] == found["test_error"] == 100 and found["mean_margin"] is None


def test_an_attack_alone_certifies_nothing_and_counts_what_it_refutes() -> None:
    examples = examples_of([5, 6, 3], 0.2, 0, 8)
    judged = judge(ATTACK, examples, list(range(8)))
    refuted = sum(one.verdict == "refuted" for one in judged)
    assert not any(one.verdict == "certified" for one in judged) and 0 < refuted < 8
    assert summary(judged, ATTACK)["noncertified_error"] == 100 * refuted / 8


def test_verdicts_agree_with_the_exact_optimum() -> None:
    examples = examples_of([6, 8, 6, 4], 0.1, 3, 10)
    exact = judge(Exact(seconds=600.0, intermediate="crown"), examples, list(range(10)))
    for method in (
        IBP(),
        LINES,
        sdp(),
        sdp(linear_cut=True),
        sdp(solver="clarabel", attack=None, linear=None),
    ):
        for one, true in zip(judge(method, examples, list(range(10))), exact, strict=True):
            if one.verdict == "certified":
                assert true.verdict == "certified"
            if one.verdict == "refuted":
                assert true.verdict == "refuted"


def test_a_failing_reference_solver_falls_back_to_a_valid_bound_and_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import cvxpy as cp

    def fail(*_: Any, **__: Any) -> None:
        raise cp.SolverError("numerical trouble")

    monkeypatch.setattr(cp.Problem, "solve", fail)
    examples = examples_of([4, 5, 3], 0.2, 0, 2)
    judged = judge(sdp(solver="scs", attack=None, linear=None), examples, [0, 1])
    ibp = judge(IBP(), examples, [0, 1])
    for one, other in zip(judged, ibp, strict=True):
        assert one.failed == 2
        assert one.upper["sdp"] == pytest.approx(other.upper["ibp"], abs=1e-9)


def test_cvxpy_refuses_networks_that_would_take_it_hours(trained: MLP) -> None:
    examples = examples_of([150, 120, 3], 0.5, 0, 1)
    with pytest.raises(UserError, match="too many"):
        judge(sdp(solver="clarabel", attack=None, linear=None), examples, [0])


def test_a_killed_and_resumed_run_goes_on_at_the_next_batch_and_is_equal(
    trained: MLP, tmp_path: Path
) -> None:
    whole = module(trained, sdp(), examples=10, batch=3)
    fit(whole, tmp_path / "a")
    part = module(trained, sdp(), examples=10, batch=3)
    fit(part, tmp_path / "b", save=SaveAfter(1, tmp_path / "b.ckpt"))
    resumed = module(trained, sdp(), examples=10, batch=3)
    solved: list[tuple[int, int]] = []
    solve = resumed.solve
    resumed.solve = lambda start, stop: (solved.append((start, stop)), solve(start, stop))[1]
    fit(resumed, tmp_path / "c", resume=tmp_path / "b.ckpt")
    assert solved == [(6, 9), (9, 10)]

    def plain(m: CertifyModule) -> str:
        return json.dumps([one.__dict__ for one in m.judged])

    assert plain(resumed) == plain(whole)


def test_the_report_shows_images_verdicts_and_bounds_in_the_order_of_the_proof(
    trained: MLP, tmp_path: Path
) -> None:
    methods = {
        "pgd": ATTACK, "exact": Exact(seconds=600.0, intermediate="crown"), "ibp": IBP(), "crown": LINES,
        "lp": LP(solver="highs", steps=0, lr=0.1, intermediate="interval", attack=None, linear=None),
        "sdp": sdp(linear_cut=True, attack=None, linear=None, tolerance=1e-6),
    }  # fmt: skip
    m = module(trained, Sandwich(methods=methods), examples=3)
    fit(m, tmp_path)
    text = (tmp_path / "examples.html").read_text()
    assert text.count("data:image/png;base64,") == 3
    assert all(f"<th>{name}</th>" in text for name in methods)
    assert ET.fromstring((tmp_path / "sandwich.svg").read_text()).tag.endswith("svg")
    assert len(json.loads((tmp_path / "bounds.json").read_text())) == 3
    found = m.results()
    order = [found[f"mean_margin_{name}"] for name in ("pgd", "exact", "sdp", "lp", "crown", "ibp")]
    # the exact bound has HiGHS's tolerance in it, 1e-6 of the logits' spread, here of about 15
    assert all(a <= b + 2e-5 for a, b in pairwise(order))
    assert found["mean_margin"] == found["mean_margin_sdp"]


def test_a_report_without_any_bound_still_draws() -> None:
    judged = judge(NoCertifier(), examples_of([4, 5, 3], 0.1, 0, 2), [0, 1])
    assert "open" in page(judged, torch.zeros(2, 1, 2, 2), 0.1) and "<svg" in sandwich(judged, 0.1)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["paper.eps=-0.1"], "paper.eps=-0.1; valid: a finite number"),
        (["paper.eps=.inf"], "paper.eps"),
        (["paper.batch=0"], "paper.batch=0"),
        (["paper.examples=0"], "paper.examples=0"),
        (["paper.examples=398"], "1 to 397, or null"),
        (["dataset.normalise=standard"], "dataset.normalise=standard"),
        (["method.tolerance=0.0"], "method.tolerance=0.0"),
        (["method=optimizer/adam"], "does not take method"),
        (["teacher=null"], "name what is to be used"),
    ],
)
def test_what_is_out_of_range_gets_one_line(words: list[str], line: str, tmp_path: Path) -> None:
    base = ["paper=sdp_cert", "scale=smoke", f"output_dir={tmp_path}", "logger=none", "trainer=cpu"]
    with pytest.raises(UserError, match=line):
        execute(*compose([*base, *words]))


def test_a_network_with_a_layer_that_cannot_be_certified_is_refused_by_name(tmp_path: Path) -> None:
    words = ["paper=sdp_cert", "scale=smoke", f"output_dir={tmp_path}", "logger=none", "trainer=cpu"]
    words.append("model=mlp")
    with pytest.raises(UserError, match=r"layer layers\.2 \(Tanh\) cannot be certified"):
        execute(*compose([*words, "model.activation=tanh"]))


def test_each_seed_of_a_row_on_digits_has_a_network_of_its_own() -> None:
    rows = ["plain_sdp", "grad_nn_lp", "lp_nn_grad_cert", "pgd_nn_crown"]
    for row in rows:
        config, _ = compose([f"entry=sdp_cert.digits.{row}_eps0p1", "scale=laptop", "seed=5"])
        assert config.model.teacher.endswith(" seed=5")


@pytest.mark.parametrize("training", ["grad", "lp", "pgd"])
def test_each_training_is_a_stage_of_certification(training: str, tmp_path: Path) -> None:
    words = ["paper=sdp_cert", "scale=smoke", f"output_dir={tmp_path}", "logger=none", "trainer=cpu"]
    teacher = f"teacher='model=mlp model.hidden=[4] method=robust/{training}'"
    result = execute(*compose([*words, teacher, "method=certifier/crown"])).result
    assert result["metrics"]["examples"] == 2
    assert result["stages"]["teacher"]["choices"]["method"] == f"robust/{training}"
    assert 0 <= result["metrics"]["teacher_test_error"] <= 100


@pytest.mark.parametrize(
    "entry",
    ["table1.pgd_nn_sdp_cert", "clean.lp_nn", "fig_margins.lp_nn_lp_cert",
     "scaling_random.m4", "boxes.pgd_nn_wong_kolter_unclipped"],
)  # fmt: skip
def test_rows_run_without_any_file(entry: str, tmp_path: Path) -> None:
    words = [f"entry=sdp_cert.{entry}", "scale=smoke", f"output_dir={tmp_path}", "logger=none", "trainer=cpu"]
    if "scaling" not in entry:
        words.append("dataset.source=synthetic")
    metrics = execute(*compose(words)).result["metrics"]
    if "scaling" in entry:
        assert 1 - 1e-6 <= metrics["sdp_over_exact"] < metrics["lp_over_exact"]
    else:
        assert 0 <= metrics["noncertified_error"] <= 100


def test_certifications_of_other_networks_compose() -> None:
    assert len(runnable("sdp_cert")) > 100
    for name in ("fig_margins.lp_nn_sdp_cert", "digits.lp_nn_sdp_eps0p05"):
        check_config(compose([f"entry=sdp_cert.{name}", "scale=laptop"])[0])


def test_the_claims_name_entries_at_laptop_scale() -> None:
    known = all_entries()
    claims = load_claims("sdp_cert")
    assert len(claims) >= 10
    for claim in claims:
        for run in claim.all_runs():
            words = dict(word.split("=", 1) for word in run.words)
            assert words["entry"] in known and words["scale"] == "laptop"
