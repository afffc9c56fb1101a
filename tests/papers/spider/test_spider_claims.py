"""The claims of SPIDER: independent seeds, runs that can be built, problems that differ by seed."""

import pytest
import torch

from common.claims.claims import Claim, load_claims
from common.runs.check import check_config
from common.runs.compose import compose
from common.runs.evidence import asked
from common.runs.runner import build
from papers.spider.module import SpiderModule
from papers.spider.problems.factory import build_problem
from papers.spider.problems.protocol import Problem

CLAIMS = load_claims("spider")


def repeats(words: tuple[str, ...]) -> int:
    (given,) = [word.removeprefix("paper.repeats=") for word in words if "paper.repeats=" in word] or ["1"]
    return int(given)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_no_two_seeds_of_a_claim_share_a_replicate(claim: Claim) -> None:
    for run in claim.all_runs():
        others = [abs(seed - run.seed) for seed in claim.seeds if seed != run.seed]
        assert min(others) >= repeats(run.words)


def test_runs_that_claims_share_are_asked_for_by_the_same_words() -> None:
    """The largest claims' runs are those of the slopes in n: nothing is computed twice."""
    by_name = {claim.name.removeprefix("spider."): claim for claim in CLAIMS}
    slopes = {
        asked(run.words)
        for name in ("gd_calls_in_n", "svrg_calls_in_n", "spider_calls_in_n", "spiderboost_calls_in_n")
        for run in by_name[name].all_runs()
    }
    for name in ("spider_is_cheaper_than_gd", "spider_is_cheaper_than_svrg", "spider_saves_a_half_in_n"):
        assert {asked(run.words) for run in by_name[name].all_runs()} <= slopes


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_the_first_run_of_a_claim_is_one_that_can_be_built(claim: Claim) -> None:
    config, request = compose(list(claim.all_runs()[0].words))
    check_config(config)
    assert isinstance(build(config, request), SpiderModule)


def problem(words: list[str], seed: int) -> Problem:
    config, request = compose(["paper=spider", *words, f"seed={seed}"])
    module = build(config, request)
    module.data.setup()
    return build_problem(module.data, module.model, torch.device("cpu"))


@pytest.mark.parametrize(
    "words",
    [
        ["dataset=synthetic_logistic_n1e3", "recipe=spider/synthetic_design_per_seed"],
        ["dataset=quartic_saddle", "recipe=spider/quartic_per_seed"],
    ],
    ids=["logistic", "quartic"],
)
def test_a_recipe_per_seed_gives_each_seed_a_problem_of_its_own(words: list[str]) -> None:
    def gradient(seed: int, recipe: bool = True) -> torch.Tensor:
        p = problem(words if recipe else words[:1], seed)
        return p.true_gradient(torch.full((1, p.dim), 0.5, dtype=p.dtype))

    assert torch.equal(gradient(3), gradient(3))
    assert float((gradient(3) - gradient(4)).norm()) > 1e-3
    assert torch.equal(gradient(3, recipe=False), gradient(4, recipe=False))
