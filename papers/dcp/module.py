"""dcp as a LightningModule: trainings by minibatches, and the selection of channels between them."""

from typing import Any, Unpack

from common.base.stages import Stage
from common.training.supervised import SupervisedModule, Training
from papers.dcp.complexity import complexity
from papers.dcp.counting import Count, CountingModule
from papers.dcp.measures import error_gaps
from papers.dcp.selection_module import SelectionModule
from papers.dcp.selectors import Selector


class DCPSettings(Training):
    """What a `DCPModule` takes beside what all supervised training takes.

    Attributes:
        start: the run whose network this one starts from; None: from initial weights.
    """

    start: Stage | None


class DCPModule(SupervisedModule):
    """Zhuang et al., "Discrimination-aware Channel Pruning for Deep Neural Networks", NeurIPS 2018.

    Pre-training, training with auxiliary losses and fine-tuning are supervised training. With a method of
    kind `selection` it is a `SelectionModule`, with `pruning/count` a `CountingModule`.

    Args:
        settings: see `DCPSettings`.
    """

    def __new__(cls, **settings: Any) -> Any:
        """The module of the kind that the method asks for."""
        if isinstance(settings.get("method"), Selector):
            return SelectionModule(**settings)
        if isinstance(settings.get("method"), Count):
            return CountingModule(**settings)
        return super().__new__(cls)

    def __init__(self, **settings: Unpack[DCPSettings]) -> None:
        start = settings.pop("start")  # type: ignore[misc]
        super().__init__(**settings)  # type: ignore[misc]
        self.start_metrics = {} if start is None else start.metrics

    def results(self) -> dict[str, Any]:
        """Of supervised training, `macs`, and `err_gap`, by how many points the error is above the start's.

        `parameters` are those that the deployed network runs (`papers.dcp.complexity`).
        """
        found = super().results()
        size = complexity(self.network(), self.data.shape)
        return error_gaps(found, self.start_metrics) | found | size._asdict()
