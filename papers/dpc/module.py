"""dpc as LightningModules: training of whole networks, the cache of a backbone's maps, the search for a
cell."""

from typing import Any, Unpack

from common.base.stages import Stage
from common.metrics.macs import count_macs
from common.training.supervised import SupervisedModule, Training
from papers.dpc.backbones import padded_side
from papers.dpc.caching import CacheModule, FeatureCache
from papers.dpc.cell import ASPP_CELL
from papers.dpc.heads import Cost, DensePredictionCell, map_of, table_cost
from papers.dpc.network import DeepLab
from papers.dpc.search import CellSearch, CellSearchModule, SearchBudget


class DPCSettings(Training, SearchBudget):
    """What the paper's modules take; of what a search alone needs, see `SearchBudget`.

    Attributes:
        start: the run whose network this one starts from; None: from initial weights.
        cost_size: [height, width] of the images at which multiply-adds are counted; None: those of the data.
    """

    start: Stage | None
    cost_size: list[int] | None


SEARCH_KEYS = tuple(SearchBudget.__annotations__)
SUPERVISED_KEYS = tuple(Training.__annotations__)


class DPCModule(SupervisedModule):
    """Chen et al., "Searching for Efficient Multi-Scale Architectures for Dense Image Prediction", NeurIPS
    2018.

    Networks are trained by the shared supervised module. With a method of kind `caching` it is a
    `CacheModule`, with one of kind `architecture_search` a `CellSearchModule`.

    Args:
        settings: see `DPCSettings`.
    """

    def __new__(cls, **settings: Any) -> Any:
        """The module of the kind that the method asks for."""
        method = settings.get("method")
        if isinstance(method, FeatureCache):
            return CacheModule(**{key: settings[key] for key in ("data", "model", "method")})
        if isinstance(method, CellSearch):
            wanted = ("data", "model", "method", "seed", *SEARCH_KEYS)
            return CellSearchModule(**{key: settings[key] for key in wanted})
        return super().__new__(cls)

    def __init__(self, **settings: Unpack[DPCSettings]) -> None:
        self.cost_size = settings["cost_size"]
        super().__init__(**{key: settings[key] for key in SUPERVISED_KEYS})  # type: ignore[literal-required]

    def results(self) -> dict[str, Any]:
        """The shared results, and what the network costs.

        head_millions, head_billions: parameters and multiply-adds of the context module's branches, as table
            1
        counts them. billions: multiply-adds of the whole network, billions_of_views: of all scales and
        mirror images that it is judged by. branch0_norm, ...: mean absolute weights of the projection by
        branch, and branch0_rank, ... their ranks, 1 the largest (figure 5b).
        """
        found, network = super().results(), self.network()
        if not isinstance(network, DeepLab):
            return found
        size = self.cost_size or list(self.data.shape[1:])
        cost = head_cost(network, (size[0], size[1]))
        found |= {"head_millions": cost.parameters / 1e6, "head_billions": cost.madds / 1e9}
        found["billions"] = count_macs(network, (self.data.shape[0], size[0], size[1])) / 1e9
        views = sum(scale**2 for scale in network.test_scales) * (2 if network.test_flip else 1)
        found["billions_of_views"] = views * found["billions"]
        return found | branch_norms(network)


def head_cost(network: DeepLab, size: tuple[int, int]) -> Cost:
    """Parameters and multiply-adds of a context module as table 1 counts them, at images of a size."""
    backbone = network.backbone
    cell = network.head.cell if isinstance(network.head, DensePredictionCell) else ASPP_CELL
    filled = [padded_side(side, backbone.output_stride) for side in size]
    map_size = map_of((filled[0], filled[1]), backbone.output_stride)
    return table_cost(cell, backbone.channels, network.settings.filters, map_size)


def branch_norms(network: DeepLab) -> dict[str, float]:
    """Of a cell, mean absolute weights of the projection by branch, and their ranks; of ASPP nothing."""
    if not isinstance(network.head, DensePredictionCell):
        return {}
    norms = network.head.branch_norms().tolist()
    ranks = {
        number: rank for rank, number in enumerate(sorted(range(len(norms)), key=lambda k: -norms[k]), 1)
    }
    return {f"branch{k}_norm": norm for k, norm in enumerate(norms)} | {
        f"branch{k}_rank": ranks[k] for k in range(len(norms))
    }
