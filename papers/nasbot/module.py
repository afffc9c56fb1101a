"""nasbot as LightningModules: searches, and training of one network by minibatches."""

from typing import Any, Unpack

from common.training.supervised import SupervisedModule, Training
from papers.nasbot.search import NetworkSearch, NetworkSearchModule, SearchBudget


class NasbotSettings(Training, SearchBudget):
    """What the paper's modules take; of what a search alone needs, see `SearchBudget`."""


SEARCH_KEYS = tuple(SearchBudget.__annotations__)
SUPERVISED_KEYS = tuple(Training.__annotations__)


class NasbotModule(SupervisedModule):
    """Kandasamy et al., "Neural Architecture Search with Bayesian Optimisation and Optimal Transport",
    NeurIPS 2018.

    With a method of kind `network_search` it is a `NetworkSearchModule`; any network, a found one too
    (`model=graph_regression model.network=found.json`), is trained by the shared supervised module.

    Args:
        settings: see `NasbotSettings`.
    """

    def __new__(cls, **settings: Any) -> Any:
        """The module of the kind that the method asks for."""
        if isinstance(settings.get("method"), NetworkSearch):
            wanted = ("data", "model", "method", "seed", *SEARCH_KEYS)
            return NetworkSearchModule(**{key: settings[key] for key in wanted})
        return super().__new__(cls)

    def __init__(self, **settings: Unpack[NasbotSettings]) -> None:
        super().__init__(**{key: settings[key] for key in SUPERVISED_KEYS})  # type: ignore[literal-required]

    def results(self) -> dict[str, Any]:
        """The shared results; of classes also the error as a fraction, test_error_fraction."""
        found = super().results()
        if "test_error" in found:
            found["test_error_fraction"] = found["test_error"] / 100
        return found
