"""Meta Bayesian optimization as a LightningModule: the loop of all searches, with the figures' numbers."""

from typing import Any

from common.search.module import SearchModule
from papers.meta_bo.searcher import MetaSearcher

# evaluations after which the paper's figures are read
READ_AT = (1, 5, 6, 10, 11, 20, 29, 30, 50, 96, 100, 160)


class MetaBOModule(SearchModule):
    """See `SearchModule`."""

    def results(self) -> dict[str, Any]:
        """And the best value (where an optimum is known the simple regret) after some of the evaluations."""
        found = super().results()
        for t in READ_AT:
            if t > self.seen.count:
                break
            best = self.f[:, :t].nan_to_num(nan=float("-inf")).max(1).values
            found |= self.mean_and_error(f"best_at_{t}", best)
            if self.optimum is not None:
                found |= self.mean_and_error(f"simple_regret_at_{t}", self.optimum - best)
        if isinstance(self.searcher, MetaSearcher):
            found |= self.searcher.counts()
        return found
