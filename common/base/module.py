"""The base of every paper's LightningModule: what the runner asks of it."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import nn

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.loader import RoundLoader

# what a run keeps in its folder beside its checkpoints until it is done; one made anew finds none of it
UNDER_WAY = "under_way"


@dataclass(frozen=True)
class Progress:
    """How far a run is: `done` of `total` in `unit`, with a few words on how it goes."""

    done: float
    total: float
    unit: str
    text: str


class PaperModule(pl.LightningModule):
    """A paper as a LightningModule, whatever its shape.

    Optimization is manual: one `training_step` is a block of the paper's own steps. What a run
    measures on its way goes to `history` (kept in checkpoints, written to `result.json`, sent to the
    logger); what it ends with comes from `results`.
    """

    # whether a run of it may start from the network of another (`start=`), which it then gets as its model
    STARTS: ClassVar[bool] = False

    data: DataSet

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.history: dict[str, list[float | None]] = {}

    @abstractmethod
    def progress(self) -> Progress:
        """How much of the budget is spent."""

    @abstractmethod
    def results(self) -> dict[str, Any]:
        """The final metrics, computed once after `fit`; numbers, None or lists of numbers."""

    def conclusion(self) -> dict[str, Any]:
        """What it ends with besides numbers, as text and lists that JSON can hold; nothing here.

        `words` of it are the command that a search recommends.
        """
        return {}

    def network(self) -> nn.Module:
        """The network that the run trains, for those that start from it.

        Raises:
            UserError: it trains none.
        """
        raise UserError(self.no_network())

    @classmethod
    def trains_network(cls) -> bool:
        """Whether `network` can give one: it is overridden."""
        return cls.network is not PaperModule.network

    @classmethod
    def no_network(cls) -> str:
        """What is said where a network is asked for, and none is trained."""
        return (
            f"{cls.__name__} trains no network that could be kept or judged elsewhere (valid: papers that "
            "train one by minibatches, as paper=yogi)"
        )

    def finished(self, checkpoint: dict[str, Any]) -> nn.Module:
        """The network that a finished run leaves, with its weights, in evaluation mode.

        Args:
            checkpoint: the run's last, as `torch.load` gives it.

        Raises:
            UserError: it trains none.
        """
        self.network()
        self.reshape(checkpoint["search_state"])
        self.load_state_dict(checkpoint["state_dict"])
        return self.network().eval()

    def handed_on(self) -> nn.Module:
        """What a run that needs this one as a stage gets: the network, unless a method leaves it more."""
        return self.network()

    def reshape(self, state: dict[str, Any]) -> None:
        """Give the network the shape that it had when a checkpoint was made; nothing here.

        Called with the `search_state` before weights are loaded: where a run goes on, where another starts
        from it, where its network leaves.
        """

    def stop_early(self, rule: Any) -> None:
        """End the training where a rule (`common.training.early_stopping`) says so.

        Raises:
            UserError: the module has no epochs after which it measures a validation split, as here.
        """
        raise UserError(f"stop: {type(self).__name__} trains no network by epochs (valid: stop=none)")

    def limit_gradients(self, norm: float) -> None:
        """Scale each step's gradient down to the Euclidean norm `norm` where it is longer.

        Raises:
            UserError: the module takes no steps of an optimizer of its own, as here; a norm that is not
                positive.
        """
        raise UserError(f"clip={norm}: {type(self).__name__} trains no network by minibatches (valid: null)")

    def average_weights(self, decay: float) -> None:
        """Judge and keep the network at an exponential moving average of its weights.

        Args:
            decay: of the average, from 0 to below 1.

        Raises:
            UserError: the module takes no steps of an optimizer of its own, as here; a decay out of range.
        """
        raise UserError(f"ema={decay}: {type(self).__name__} trains no network by minibatches (valid: null)")

    def remarks(self) -> list[str]:
        """What whoever reads the results must know, a line each; nothing here."""
        return []

    def search_state(self) -> dict[str, Any]:
        """What besides parameters must survive a kill: tensors, numbers, strings, lists, dicts."""
        return {}

    def load_search_state(self, state: dict[str, Any]) -> None:
        """Put back what `search_state` gave."""

    def record(self, step: float, **values: float) -> None:
        """Add one point to the history, and send it to the logger.

        All series of the history have one length: a series that this point does not name gets None.
        """
        length = len(self.history.get("step", []))
        for name in values:
            self.history.setdefault(name, [None] * length)
        self.history.setdefault("step", [])
        for name, series in self.history.items():
            value = {"step": step, **values}.get(name)
            series.append(None if value is None else float(value))
        self._send(length)

    def _send(self, index: int) -> None:
        """Send a point of the history to the logger."""
        if self.logger is not None:
            point = {name: series[index] for name, series in self.history.items()}
            step = point.pop("step")
            assert step is not None
            found = {name: value for name, value in point.items() if value is not None}
            self.logger.log_metrics(found, step=int(step))

    def configure_optimizers(self) -> torch.optim.Optimizer | None:
        """None: steps are taken by the module itself."""
        return None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["history"] = {name: list(series) for name, series in self.history.items()}
        checkpoint["search_state"] = self.search_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = checkpoint["history"]
        self.reshape(checkpoint["search_state"])
        # a logger starts empty: what the run logged after the checkpoint comes again
        for index in range(len(self.history.get("step", []))):
            self._send(index)
        self.load_search_state(checkpoint["search_state"])


class ClockModule(PaperModule):
    """A module that makes rounds, and trains no network of its own.

    Attributes:
        clock: a parameter of no network: Lightning wants one to count its steps by.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = nn.Parameter(torch.zeros(()))

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.clock], lr=0.0)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.trainer.default_root_dir)
