"""QFF's experiments as LightningModules: searches, errors of feature maps, seconds a step."""

from typing import Any, Literal, Unpack

from torch import Tensor

from common.base.errors import UserError
from common.base.module import PaperModule
from common.data.functions.additive import Sine
from common.search.module import SearchModule, SearchSettings
from common.search.searcher import Searcher
from common.search.trial_search import TrialSearchModule
from papers.qff.additive import FourierModel
from papers.qff.approximation import KernelError, PosteriorError, StepSeconds
from papers.qff.features import Exact, FeatureFamily
from papers.qff.search import AdditiveSearch

# rounds at the end of a search whose regrets are averaged
TAIL = 30


def qff(
    *,
    method: Searcher | FeatureFamily | Exact,
    measure: Literal["error", "seconds"],
    points: int,
    timed_steps: int,
    **settings: Unpack[SearchSettings],
) -> PaperModule:
    """The module for a method: a search, or for features what they get wrong or how long they take.

    Args:
        method: built from the config group.
        measure: of features: `error` of the kernel (dataset=no_data) or of the posterior (dataset=sine_1d),
            or `seconds` of a step with `points` observations.
        points: observations, where features are measured.
        timed_steps: of `seconds`, how many are timed.
        settings: see `SearchSettings`; where features are measured, `data`, `model`, `seed` and, of errors,
            `repeats` alone count.

    Raises:
        UserError: a combination that means nothing.
    """
    if isinstance(method, Searcher) and settings["data"].LONG:
        return TrialSearchModule(method=method, **settings)
    if isinstance(method, Searcher):
        return AdditiveSearchModule(method=method, **settings)
    data, model, seed, repeats = (settings["data"], settings["model"], settings["seed"], settings["repeats"])
    if measure == "seconds":
        return StepSeconds(
            data=data, model=model, family=method, seed=seed, points=points, timed_steps=timed_steps
        )
    if isinstance(method, Exact):
        raise UserError("method=features/exact has no error; valid: paper.measure=seconds")
    if isinstance(data, Sine):
        return PosteriorError(
            data=data, model=model, family=method, seed=seed, repeats=repeats, points=points
        )
    if data.KIND == "no_data":
        return KernelError(data=data, model=model, family=method, seed=seed, repeats=repeats)
    raise UserError(
        f"dataset={data.NAME}: method=features/{method.NAME} is measured on dataset=no_data (its kernel) or "
        "sine_1d (its posterior); valid here: method=search/..."
    )


class AdditiveSearchModule(SearchModule):
    """The search, with the regret of its last rounds."""

    def _tail(self) -> Tensor | None:
        if self.optimum is None:
            return None
        return (self.optimum[:, None] - self.f[:, -TAIL:]).nanmean(1)

    def results(self) -> dict[str, Any]:
        """The shared results; tail_regret: the mean regret of the last 30 evaluations, and its median over
        replicates; seconds_per_proposal; of features kernel_error, see `FourierModel`."""
        found = super().results()
        if isinstance(self.searcher, AdditiveSearch) and isinstance(self.searcher.model, FourierModel):
            found["kernel_error"] = self.searcher.model.kernel_error
        tail = self._tail()
        if tail is not None:
            found |= {"tail_regret": float(tail.mean()), "tail_regret_median": float(tail.median())}
            if len(tail) > 1:
                found["tail_regret_sem"] = float(tail.std()) / len(tail) ** 0.5
        proposals = max(1, self.seen.count - self.initial)
        return found | {"seconds_per_proposal": self.propose_seconds / proposals}
