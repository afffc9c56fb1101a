"""The claims: their runs are entries, their metrics are those of tables, their sides differ as they say."""

from common.claims.claims import Paired, load_claims
from common.runs.catalogue import all_entries
from common.runs.compose import compose
from common.tables.tables import metric_keys

CLAIMS = load_claims("moonshine")


def test_every_run_of_a_claim_is_an_entry_and_its_metric_one_of_the_tables() -> None:
    known = all_entries()
    assert len(CLAIMS) >= 8
    for claim in CLAIMS:
        for run in claim.all_runs():
            words = dict(word.split("=", 1) for word in run.words)
            entry = known[words["entry"]]
            assert set(words) == {"scale", "entry", "seed"}
            assert claim.rule.metric in metric_keys("moonshine", entry.table).values()


def test_the_digits_are_judged_over_eight_paired_seeds() -> None:
    digits = [claim for claim in CLAIMS if claim.name.startswith("moonshine.digits")]
    assert all(claim.seeds == tuple(range(8)) and claim.kind == "paired" for claim in digits)


def test_the_two_sides_of_a_pair_differ_in_the_method_or_in_the_network_alone() -> None:
    for claim in CLAIMS:
        if not isinstance(claim.rule, Paired):
            continue
        first, second = (compose([*side, *claim.words])[0] for side in (claim.rule.a, claim.rule.b))
        differing = {str(key) for key in first if first[key] != second[key]} - {"teacher"}
        assert differing in ({"method"}, {"model"}), claim.name


def test_the_sides_that_learn_from_a_teacher_learn_from_the_same_one() -> None:
    for claim in CLAIMS:
        entries = {word for run in claim.all_runs() for word in run.words if word.startswith("entry=")}
        taught = [compose([word, *claim.words])[0] for word in entries if "_scratch" not in word]
        assert len({config.method.teacher for config in taught}) <= 1, claim.name
