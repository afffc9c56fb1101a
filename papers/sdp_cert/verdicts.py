"""What the bounds of several certifiers say about an example, and about a set of examples."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from scipy.stats import binomtest
from torch import Tensor

from papers.sdp_cert.bounds import interval_bounds, rounding
from papers.sdp_cert.certifiers import Certifier, Examples

Verdict = Literal["wrong", "refuted", "certified", "open"]
LEVEL = 0.95


@dataclass(frozen=True)
class Judged:
    """One example: its clean prediction, all bounds on its margins, and what follows.

    Attributes:
        index: of the test image; targets: the wrong classes, in the order of the bounds.
        upper, lower: bounds by the name of the method, one a target; a NaN is a target that it was not asked
            for.
        failed: targets for which a solver failed.
    """

    index: int
    label: int
    predicted: int
    verdict: Verdict
    targets: list[int]
    upper: dict[str, list[float]] = field(default_factory=dict)
    lower: dict[str, list[float]] = field(default_factory=dict)
    failed: int = 0

    def worst(self, name: str) -> float | None:
        """The largest bound over the targets that a method was asked for, from above or else from below."""
        values = [x for x in self.upper.get(name, self.lower.get(name, [])) if not math.isnan(x)]
        return max(values, default=None)


def judge(method: Certifier, examples: Examples, indices: list[int]) -> list[Judged]:
    """Run a certifier, and those that come before it, on a batch.

    A wrong clean prediction counts as not certified. A bound certifies where it is below 0 by more than
    rounding, so that the network in float64 keeps its class as well. Methods that decide see only the targets
    that are open by then: of bounds that do not certify, and of examples that no attack has refuted.
    """
    logits = examples.network(examples.x)
    right = logits.argmax(1) == examples.labels
    goal = examples.goal
    layers = interval_bounds(examples.network, examples.box)
    below = -rounding(examples.network, layers, examples.box, goal)
    upper = torch.full_like(goal.constants, torch.inf)
    lower = torch.full_like(upper, -torch.inf)
    uppers: dict[str, Tensor] = {}
    lowers: dict[str, Tensor] = {}
    failed = torch.zeros_like(upper, dtype=torch.bool)
    for one in (*method.before, method):
        refuted = (lower >= 0).any(1)
        asked = right[:, None] & torch.ones_like(failed)
        if one is method and method.decides:
            asked = asked & ~(upper < below) & ~refuted[:, None]
        if not asked.any():
            continue
        found = one.bounds(examples, asked)
        # where numbers overflowed there is no bound
        if found.upper is not None:
            above = torch.where(found.upper.isnan(), torch.inf, found.upper)
            uppers[one.NAME] = torch.where(asked, above, torch.nan)
            upper = torch.where(asked, upper.minimum(above), upper)
        if found.lower is not None:
            attained = torch.where(found.lower.isnan(), -torch.inf, found.lower)
            lowers[one.NAME] = torch.where(asked, attained, torch.nan)
            lower = torch.where(asked, lower.maximum(attained), lower)
        if found.failed is not None:
            failed |= found.failed
    certified, refuted = (upper < below).all(1), (lower >= 0).any(1)
    judged = []
    for e, index in enumerate(indices):
        verdict: Verdict = "open"
        if not right[e]:
            verdict = "wrong"
        elif refuted[e]:
            verdict = "refuted"
        elif certified[e]:
            verdict = "certified"
        judged.append(
            Judged(
                index=index,
                label=int(examples.labels[e]),
                predicted=int(logits[e].argmax()),
                verdict=verdict,
                targets=goal.targets[e].tolist(),
                upper={name: value[e].tolist() for name, value in uppers.items()},
                lower={name: value[e].tolist() for name, value in lowers.items()},
                failed=int(failed[e].sum()),
            )
        )
    return judged


def summary(judged: list[Judged], method: Certifier) -> dict[str, Any]:
    """Fractions in percent, with exact binomial intervals, and mean margins of right examples.

    Returns:
        noncertified_error, its noncertified_low and noncertified_high (95 %), verified = 100 - it; for a
        method that only attacks, the fraction that it refutes or that is wrong.
        attack_error, test_error: the same of refuted and of wrong examples; open_fraction: of undecided ones.
        mean_margin: mean over right examples of the method's worst bound, and mean_margin_<name> of each
            method.
        solver_failures: targets where a solver failed; examples: how many.
    """
    n = len(judged)
    counts = {kind: sum(one.verdict == kind for one in judged) for kind in ("wrong", "refuted", "open")}
    attacks = not any(one.upper for one in judged)
    bad = counts["wrong"] + counts["refuted"] + (0 if attacks else counts["open"])
    interval = binomtest(bad, n).proportion_ci(LEVEL)
    found: dict[str, Any] = {
        "noncertified_error": 100 * bad / n,
        "noncertified_low": 100 * interval.low,
        "noncertified_high": 100 * interval.high,
        "verified": 100 * (1 - bad / n),
        "attack_error": 100 * (counts["wrong"] + counts["refuted"]) / n,
        "test_error": 100 * counts["wrong"] / n,
        "open_fraction": 100 * counts["open"] / n,
        "solver_failures": sum(one.failed for one in judged),
        "examples": n,
    }
    names = dict.fromkeys(name for one in judged for name in (*one.upper, *one.lower))
    for name in names:
        worst = [value for one in judged if (value := one.worst(name)) is not None]
        found[f"mean_margin_{name}"] = sum(worst) / len(worst) if worst else None
    last = method.before[-1] if method.NAME == "sandwich" else method
    return found | {"mean_margin": found.get(f"mean_margin_{last.NAME}")}
