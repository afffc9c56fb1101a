"""nao as LightningModules: searches for cells, and training of the networks that they make."""

from typing import Any, Unpack

import torch
from torch import Tensor

from common.base.errors import UserError
from common.base.limits import require
from common.data.text.text_data import TextData
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.training.language import LanguageModule, Penalties
from common.training.supervised import SupervisedModule, Training
from papers.nao.child_training import cut_out
from papers.nao.network import NAONet
from papers.nao.recurrent_search import RecurrentSearch, RecurrentSearchModule
from papers.nao.search import ConvSearch, ConvSearchModule, SearchBudget
from papers.nao.ws_search import (
    SharedConvSearch,
    SharedConvSearchModule,
    SharedRecurrentSearch,
    SharedRecurrentSearchModule,
)


class NAOSettings(Training, SearchBudget):
    """What the paper's modules take; of what a search alone needs, see `SearchBudget`.

    Attributes:
        cutout: side of the square that is blanked in each training image; 0: none.
        varied_bptt, activation_penalty, temporal_penalty: of language models, see `Language`.
    """

    cutout: int
    varied_bptt: bool
    activation_penalty: float
    temporal_penalty: float


SEARCH_KEYS = tuple(SearchBudget.__annotations__)
SUPERVISED_KEYS = tuple(Training.__annotations__)
LANGUAGE_KEYS = ("varied_bptt", "activation_penalty", "temporal_penalty")


class NAOModule(SupervisedModule):
    """Luo, Tian, Qin, Chen, Liu, "Neural Architecture Optimization", NeurIPS 2018.

    With a method of kind `architecture_search` it is a `ConvSearchModule`, a `RecurrentSearchModule`, a
    `SharedConvSearchModule` or a `SharedRecurrentSearchModule`, on texts a `NAOLanguageModule`; else a
    network is trained by the shared supervised module, with cutout, dropped paths and the second classifier's
    loss.

    Args:
        settings: see `NAOSettings`.
    """

    def __new__(cls, **settings: Any) -> Any:
        """The module of the kind that the method asks for."""
        method = settings.get("method")
        text = isinstance(settings.get("data"), TextData)
        if isinstance(method, ConvSearch | SharedConvSearch) and text:
            raise UserError(
                "method: searches for networks of images, and the data are a text (valid: optimizer/ntasgd "
                "to train a recurrent cell, architecture_search/nao_recurrent to search for one)"
            )
        if isinstance(method, ConvSearch):
            wanted = ("data", "model", "method", "seed", *SEARCH_KEYS)
            return ConvSearchModule(**{key: settings[key] for key in wanted})
        if isinstance(method, SharedConvSearch):
            wanted = ("data", "model", "method", "seed", *SEARCH_KEYS)
            return SharedConvSearchModule(**{key: settings[key] for key in wanted})
        if isinstance(method, SharedRecurrentSearch):
            wanted = ("data", "model", "method", "seed", "varied_bptt", *SEARCH_KEYS)
            penalties = Penalties(settings["activation_penalty"], settings["temporal_penalty"])
            return SharedRecurrentSearchModule(penalties=penalties, **{key: settings[key] for key in wanted})
        if isinstance(method, RecurrentSearch):
            wanted = ("data", "model", "method", "seed", *SEARCH_KEYS, *LANGUAGE_KEYS)
            return RecurrentSearchModule(**{key: settings[key] for key in wanted})
        if text:
            return NAOLanguageModule(**{key: settings[key] for key in (*SUPERVISED_KEYS, *LANGUAGE_KEYS)})
        return super().__new__(cls)

    def __init__(self, **settings: Unpack[NAOSettings]) -> None:
        require("at least 0", "paper", cutout=settings["cutout"])
        if type(settings["method"]).__module__.startswith("papers.") and not isinstance(
            settings["method"], torch.nn.Module
        ):
            raise UserError(
                "method: is another paper's search (valid: architecture_search/nao, nao_random, "
                "nao_evolution, nao_every)"
            )
        self.cutout = settings["cutout"]
        super().__init__(**{key: settings[key] for key in SUPERVISED_KEYS})  # type: ignore[literal-required]

    def _loss(self, inputs: Tensor, targets: Tensor | None) -> Tensor:
        network = self.network()
        if not isinstance(network, NAONet):
            return super()._loss(cut_out(inputs, self.cutout), targets)
        # once a step: it is in the checkpoint with the weights
        network.progress += 1 / self.total_steps
        loss = super()._loss(cut_out(inputs, self.cutout), targets)
        assert targets is not None
        return loss + network.auxiliary_loss(targets)

    def results(self) -> dict[str, Any]:
        """The shared results; of a network of cells params_millions, without its second classifier, and
        madds_millions.
        """
        found, network = super().results(), self.network()
        if not isinstance(network, NAONet):
            return found
        head = 0 if network.head is None else count_parameters(network.head)
        found["params_millions"] = (count_parameters(network) - head) / 1e6
        found["madds_millions"] = count_macs(network, self.data.shape) / 1e6
        return found


class NAOLanguageModule(LanguageModule):
    """Language models of the recurrent cells that a search has found."""

    def results(self) -> dict[str, Any]:
        """The shared results; params in millions, as the tables have them."""
        found = super().results()
        return found | {"params_millions": found["parameters"] / 1e6}
