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
        found = super().results() | self.read_at(READ_AT, "simple_regret")
        if isinstance(self.searcher, MetaSearcher):
            found |= self.searcher.counts()
        return found
