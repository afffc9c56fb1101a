"""Asynchronous successive halving (ASHA; Li et al. 2020): trials pause at rungs, and the best of each go on.

rungs    shares s_1 < ... < s_K = 1 of a trial's full length
promote  of the trials that were measured at rung k, the best one of those that are among the best
         s_k / s_k+1 of them and have not gone on; from the highest such rung
"""

from collections.abc import Sequence

from common.base.errors import UserError
from common.search.trials import Trial


def check_rungs(rungs: Sequence[float]) -> tuple[float, ...]:
    """Rungs, and the full length behind them.

    Raises:
        UserError: they do not ascend between 0 and 1.
    """
    found = tuple(float(share) for share in rungs)
    ascending = all(low < high for low, high in zip((0.0, *found), (*found, 1.0), strict=True))
    if not ascending:
        raise UserError(
            f"dataset.rungs={list(rungs)}; valid: ascending shares between 0 and 1, as [0.11,0.33], or null"
        )
    return (*found, 1.0)


def promoted(trials: Sequence[Trial], rungs: Sequence[float], last: bool) -> tuple[Trial, float] | None:
    """A trial that is to go on, and the rung to which.

    Args:
        trials: of one replicate.
        last: whether none comes any more: then the best one goes on even where a rung has too few for one
            to be promoted, until one has its full length.
    """
    for k in reversed(range(len(rungs) - 1)):
        here = _ranked(trials, rungs[k])
        keep = int(len(here) * rungs[k] / rungs[k + 1] + 1e-9)
        for trial in here[:keep]:
            if _waits(trial, rungs[k]):
                return trial, rungs[k + 1]
    if last and not any(trial.whole and not trial.failed for trial in trials):
        for k in reversed(range(len(rungs) - 1)):
            for trial in _ranked(trials, rungs[k]):
                if _waits(trial, rungs[k]):
                    return trial, rungs[k + 1]
    return None


def told(trials: Sequence[Trial], rungs: Sequence[float], enough: int) -> float:
    """The rung whose values a searcher is told: the highest at which `enough` were measured (or the lowest).

    Values of different rungs are no values of one function.
    """
    counts = {share: sum(share in trial.values for trial in trials) for share in rungs}
    return next((share for share in reversed(rungs) if counts[share] >= enough), rungs[0])


def _ranked(trials: Sequence[Trial], share: float) -> list[Trial]:
    """Those measured there, the best first; failed ones are none."""
    here = [trial for trial in trials if share in trial.values and not trial.failed]
    return sorted(here, key=lambda trial: -trial.values[share])


def _waits(trial: Trial, share: float) -> bool:
    return trial.share == share and trial.running is None
