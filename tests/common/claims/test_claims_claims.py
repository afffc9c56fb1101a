from pathlib import Path
from typing import Any

import pytest

from common.base.errors import UserError
from common.claims import claims
from common.claims.claims import Claim, Run, Trend, all_claims, load_claims, parse_claim

PAIRED = {"metric": "loss", "a": ["method=a"], "b": ["method=b"], "better": "lower"}
TREND = {"metric": "loss", "over": "dataset.n", "values": [1, 4, 16], "slope": [-1.2, -0.4]}
BOUND = {"metric": "loss", "at_most": 1.0}
COMMON = {
    "says": "A is better.",
    "source": {"kind": "recalled", "where": "Theorem 2"},
    "pilot": "nothing seen",
    "seeds": [0, 1],
    "runs": ["paper=yogi", "paper.epochs=1"],
}


def parsed(**changes: Any) -> Claim:
    text = {**COMMON, **changes}
    return parse_claim("yogi", "name", {k: v for k, v in text.items() if v is not None}, "file")


def refused(**changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        parsed(**changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_pair_has_two_runs_a_seed_with_the_words_of_its_side_last() -> None:
    claim = parsed(paired=PAIRED)
    assert claim.name == "yogi.name"
    assert claim.all_runs() == [
        Run(("paper=yogi", "paper.epochs=1", f"method={side}", f"seed={seed}"), side, None, seed)
        for seed in (0, 1)
        for side in ("a", "b")
    ]


def test_a_word_of_a_side_replaces_the_common_word_with_its_key() -> None:
    claim = parsed(paired={**PAIRED, "a": ["paper.epochs=9"]})
    assert claim.all_runs()[0].words == ("paper=yogi", "paper.epochs=9", "seed=0")


def test_a_trend_runs_each_value_and_the_other_series_too() -> None:
    claim = parsed(trend={**TREND, "against": ["paper.epochs=2"]}, seeds=[3])
    runs = claim.all_runs()
    assert [(run.side, run.x) for run in runs] == [
        (side, x) for side in ("series", "against") for x in (1, 4, 16)
    ]
    assert runs[1].words == ("paper=yogi", "paper.epochs=1", "dataset.n=4", "seed=3")
    assert runs[4].words == ("paper=yogi", "paper.epochs=2", "dataset.n=4", "seed=3")
    assert [claim.label(side) for side in ("series", "against")] == ["epochs=1", "epochs=2"]


def test_points_change_several_words_and_stand_in_the_order_of_x() -> None:
    points = [{"x": 10, "words": ["dataset=big", "paper.eps=0.1"]}, {"x": 2, "words": ["dataset=small"]}]
    trend = {"metric": "loss", "points": points, "monotone": "falling"}
    runs = parsed(trend=trend, seeds=[0]).all_runs()
    assert [run.x for run in runs] == [2, 10]
    assert runs[1].words[2:] == ("dataset=big", "paper.eps=0.1", "seed=0")


def test_the_axis_of_a_trend_has_the_name_that_is_given_or_of_the_keys_that_have_its_values() -> None:
    def axis(*words: str, **more: str) -> str:
        points = [{"x": x, "words": [word.format(x=x) for word in words]} for x in (1, 10.0)]
        rule = parsed(trend={"metric": "loss", "points": points, "monotone": "falling", **more}).rule
        assert isinstance(rule, Trend)
        return rule.axis

    assert axis("dataset.batch_size={x}", "paper.epochs=5") == "dataset.batch_size"
    assert axis("dataset.dim={x}", "paper.batch={x}") == "dataset.dim = paper.batch"
    assert axis("entry=yogi.noise_floor.adam_b{x}", along="batch size") == "batch size"
    rule = parsed(trend=TREND).rule
    assert isinstance(rule, Trend) and rule.axis == TREND["over"]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"paired": PAIRED}, "{metric} of a lower than that of b, over 2 seeds"),
        (
            {"paired": {**PAIRED, "least": 0.5, "relative": True}},
            "{metric} of a lower than that of b by more than 50 %, over 2 seeds",
        ),
        (
            {"paired": {**PAIRED, "least": -0.1}},
            "{metric} of a not higher than that of b by 0.1 or more, over 2 seeds",
        ),
        (
            {"paired": {"metric": "loss", "than": "other", "better": "lower"}},
            "loss lower than other of the same run, over 2 seeds",
        ),
        (
            {"paired": {"metric": "loss", "than": 0.5, "better": "lower"}},
            "loss lower than 0.5, over 2 seeds",
        ),
        (
            {"trend": {**TREND, "slope": [None, -1.0]}},
            "slope of log {metric} against log {over} at most -1, over 2 seeds",
        ),
        ({"bound": BOUND}, "{metric} <= 1 in each of 2 runs"),
        (
            {"identity": {"metric": "loss", "equals": "other", "tolerance": 0.0}},
            "loss = other to within 0 in each of 2 runs",
        ),
    ],
)
def test_what_a_verdict_is_about_is_said_in_words(rule: dict[str, Any], words: str) -> None:
    ((_, parts),) = rule.items()
    assert parsed(**rule).judged_by == words.format(**parts)


def test_every_trend_of_the_papers_says_what_its_axis_is() -> None:
    nameless = [name for name, claim in all_claims().items() if getattr(claim.rule, "axis", "") == "x"]
    assert nameless == []


def test_a_bound_names_several_runs() -> None:
    claim = parsed(bound={**BOUND, "each": [["method=a"], ["method=b", "method.lr=1"]]}, seeds=[0])
    assert [run.words[2:-1] for run in claim.all_runs()] == [("method=a",), ("method=b", "method.lr=1")]
    assert parsed(bound=BOUND).all_runs()[0].words == ("paper=yogi", "paper.epochs=1", "seed=0")


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"paird": PAIRED}, "unknown key paird; did you mean paired?"),
        (
            {"paired": {**PAIRED, "beter": "lower"}},
            "name.paired: unknown key beter; did you mean better",
        ),
        ({}, "give one of paired, trend, bound, identity (given: none)"),
        ({"paired": PAIRED, "bound": BOUND}, "given: paired, bound"),
        ({"paired": {**PAIRED, "better": "bigger"}}, "file: name.paired.better: Input should be 'lower' or"),
        ({"paired": {**PAIRED, "a": "method=a"}}, "file: name.paired.a"),
        ({"paired": {**PAIRED, "a": ["method"]}}, "'method' is no override word (key=value)"),
        ({"paired": {**PAIRED, "a": ["seed=1"]}}, "seeds stand in `seeds`"),
        ({"paired": {**PAIRED, "b": ["method=a"]}}, "a and b are the same runs"),
        ({"paired": {**PAIRED, "least": float("nan")}}, "file: name.paired.least"),
        ({"paired": None}, "file: name: give one of"),
        ({"paired": PAIRED, "seeds": []}, "file: name.seeds"),
        ({"paired": PAIRED, "seeds": [1, 1]}, "a seed stands twice"),
        ({"paired": PAIRED, "deterministic": True}, "goes with one seed"),
        ({"paired": PAIRED, "source": {"kind": "rumour", "where": ""}}, "file: name.source.kind"),
        ({"paired": PAIRED, "says": None}, "file: name.says: Field required"),
        ({"paired": PAIRED, "runs": ["dataset=digits"]}, "neither a paper (paper=yogi) nor an entry"),
        ({"trend": {**TREND, "monotone": "falling"}}, "give `slope` or `monotone`"),
        ({"trend": {**TREND, "over": None}}, "give `over` and `values`, or `points`"),
        ({"trend": {**TREND, "values": [1]}}, "two or more different x"),
        ({"trend": {**TREND, "values": [0, 1]}}, "every x must be > 0"),
        ({"trend": {**TREND, "slope": [1, -1]}}, "slope: [1.0, -1.0] is empty"),
        ({"trend": {**TREND, "slope": [None, None]}}, "claims nothing"),
        (
            {"trend": {**TREND, "slope": None, "monotone": "falling", "against": ["method=b"]}},
            "`against` needs `slope`",
        ),
        ({"bound": {"metric": "loss"}}, "give `at_most` or `at_least`"),
        ({"bound": {**BOUND, "at_least": 0}}, "give `at_most` or `at_least`"),
        ({"identity": {"metric": "x", "equals": "y", "tolerance": -1}}, "file: name.identity.tolerance"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_that_names_it(changes: dict[str, Any], advice: str) -> None:
    assert advice in refused(**changes)


def test_of_two_claims_with_one_name_none_is_silently_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "yogi"
    folder.mkdir()
    (folder / "claims.yaml").write_text("twin: {}\nother: {}\ntwin: {}\n")
    monkeypatch.setattr(claims, "papers_folder", lambda: tmp_path)
    with pytest.raises(UserError, match=r"papers/yogi/claims.yaml: the name twin stands there twice"):
        load_claims("yogi")


@pytest.mark.parametrize("text", ["- a list", "a: [broken", "just words"])
def test_a_file_that_is_no_mapping_is_named(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "yogi"
    folder.mkdir()
    (folder / "claims.yaml").write_text(text)
    monkeypatch.setattr(claims, "papers_folder", lambda: tmp_path)
    with pytest.raises(UserError, match=r"yogi/claims.yaml: "):
        all_claims()


def test_a_paper_without_claims_has_none() -> None:
    assert load_claims("no_such_paper") == []


def test_every_claim_of_the_project_can_be_read_and_has_runs() -> None:
    for claim in all_claims().values():
        assert claim.all_runs()
        assert claim.says


def test_every_claim_of_the_project_can_be_read_without_the_one_before_it() -> None:
    leaning = ("The same ", "And ", "There, ", "So ", "Nor ", "It ", "That ", "With it")
    for claim in all_claims().values():
        assert not claim.says.startswith(leaning) and "as above" not in claim.says, claim.name
