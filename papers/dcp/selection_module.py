"""Channel selection as a LightningModule: a round is a pick, and at the end the network is really smaller."""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.base.loader import RoundLoader
from common.base.module import PaperModule, Progress
from common.data.shared.subsets import stratified_subset
from common.pruning.slicing import sliced
from common.training.finite import NonFinite
from common.training.task_of import task_of
from papers.dcp.auxiliary import WithHeads, heads_after, places_of, require_classes
from papers.dcp.complexity import complexity
from papers.dcp.feature_maps import draw, input_maps
from papers.dcp.losses import stage_of
from papers.dcp.measures import error_gaps, saved
from papers.dcp.selection import Selection, SelectionFailed
from papers.dcp.selectors import Greedy, Selector, Work, layers_within
from papers.dcp.stagewise import Stagewise

# seconds of picks in one training step: Lightning's own 1-2 ms vanish beside it
ROUND_SECONDS = 0.15
# in the run's folder
PICTURE = "feature_maps.svg"
# what is drawn for the selection set has a stream apart from the training's
DRAWN = 2_000_003


class SelectionModule(PaperModule):
    """Selects the channels of a pre-trained network, layer by layer from its input, and removes the others.

    A round is one pass of a layer's selection (one pick, where `picks_per_pass` is 1). The network under way,
    the layer's state and everything that was measured are in the checkpoint, so a killed selection goes on
    with the same bits. When the last layer is done the network is sliced: that is what the run leaves, is
    judged by without any training, and hands on.

    The selection set is drawn from the training split without augmentation; networks and heads are in
    evaluation mode.

    Args:
        settings: of `papers.dcp.module.DCPModule`; the method is a `Selector`.

    Raises:
        UserError: no pre-trained network, nothing that can be pruned, a selector that does not fit the task.
    """

    STARTS = True

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.data, self.seed, self.selector = settings["data"], settings["seed"], settings["method"]
        assert isinstance(self.selector, Selector)
        if settings["start"] is None:
            raise UserError(
                "start=null: channels are selected of a trained network (valid: start='method=optimizer/sgd "
                "paper.epochs=20 start=null', another run's words, or a file of its weights)"
            )
        self.task = task_of(settings["model"], self.data, settings["pixels"])
        if self.selector.discriminates:
            require_classes(self.data)
        whole = self._take_up(settings["model"])
        self._frozen = {name for name, p in whole.named_parameters() if not p.requires_grad}
        self.stagewise = self._stagewise(settings)
        self.targets = self.selector.plan(whole, layers_within(whole, self.data.shape, self.selector.layers))
        self.whole = complexity(whole, self.data.shape)
        self.stages = [stage_of(self.pruned, target.layer, self.ends) for target in self.targets]
        # how far it is
        self.layer = 0
        self.current: Selection | None = None
        self.keep: dict[str, list[int]] = {}
        self.sliced = False
        self.final_losses: list[float] = []
        self.notes: list[str] = []
        self.picks = 0
        self.seconds = 0.0
        self._passes: Iterator[Selection] | None = None
        self._inputs: Tensor
        self._labels: Tensor | None

    def _take_up(self, unpruned: nn.Module) -> nn.Module:
        """The network that is selected from, with its heads: the prepared one, or the pre-trained one."""
        prepared = unpruned if self.selector.prepared is None else self.selector.prepared.model
        heads, self.ends, whole = nn.ModuleList(), [], prepared
        if isinstance(prepared, WithHeads):
            heads, self.ends, whole = prepared.heads, prepared.ends, prepared.network
        elif isinstance(self.selector, Greedy) and self.selector.finetune == "per_stage":
            self.ends, _ = places_of(whole, self.selector.losses)
            heads = heads_after(whole, self.ends, self.data.shape, require_classes(self.data))
        # neither trained nor in the checkpoint: a tuple hides them
        self._untouched = unpruned.eval(), copy.deepcopy(whole).eval()
        self.pruned = copy.deepcopy(whole).eval()
        self.heads = copy.deepcopy(heads).eval()
        return whole

    def _stagewise(self, settings: dict[str, Any]) -> Stagewise | None:
        selector = self.selector
        if not (isinstance(selector, Greedy) and selector.finetune == "per_stage"):
            return None
        return Stagewise(
            network=self.pruned,
            heads=self.heads,
            ends=self.ends,
            task=self.task,
            data=self.data,
            seed=self.seed,
            optimizer=selector.optimizer,
            schedule=settings["schedule"],
            epochs=settings["epochs"],
        )

    def setup(self, stage: str) -> None:
        self.data.setup(stage)
        # a missing file of the test set is said before the work
        self.data.size("test")

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader()

    def network(self) -> nn.Module:
        """The network that is left: smaller once all layers are done."""
        return self.pruned

    def handed_on(self) -> nn.Module:
        return self.pruned.train()

    def reshape(self, state: dict[str, Any]) -> None:
        if state["sliced"] and not self.sliced:
            self._slice(state["keep"])

    def on_fit_start(self) -> None:
        """Draw the selection set; go on where it was stopped."""
        self.data.move(self.device)
        for network in self._untouched:
            network.to(self.device)
        self._inputs, self._labels = selection_set(self.data, self.selector.samples, self.seed)

    def on_train_start(self) -> None:
        self.trainer.should_stop = self.sliced

    def training_step(self, batch: int, batch_idx: int) -> None:
        """As many rounds as fit in `ROUND_SECONDS`, at least one."""
        started = time.perf_counter()
        # losses of picks differ by less than half precision can tell
        with torch.autocast(self.device.type, enabled=False):
            while not self.sliced:
                self._round()
                if time.perf_counter() - started > ROUND_SECONDS:
                    break
        self.seconds += time.perf_counter() - started
        self.trainer.should_stop = self.sliced

    def _round(self) -> None:
        if self.layer == len(self.targets):
            self._slice(self.keep)
            return
        if self.stagewise is not None and self.stagewise.done <= self.stages[self.layer]:
            self.stagewise.block(self._gone())
            return
        if self._passes is None:
            self._passes = self.selector.passes(self.targets[self.layer], self._work(), self.current)
        before = self.current
        try:
            self.current = next(self._passes)
        except SelectionFailed as error:
            done = f"; {self.layer} of {len(self.targets)} layers are done" if self.layer else ""
            raise NonFinite(
                step=self.picks, last_finite=self._last_loss(), what=f"selection ({error}{done})"
            ) from error
        self._note(before, self.current)
        if self.current.ended:
            self._finish_layer(self.current)

    def _work(self) -> Work:
        stage = self.stages[self.layer]
        inner = stage < len(self.ends)
        return Work(
            network=self.pruned,
            baseline=self._untouched[1],
            inputs=self._inputs,
            targets=self._labels,
            end=self.ends[stage] if inner else None,
            head=self.heads[stage] if inner else None,
            loss=functional.cross_entropy if inner else self._own_loss,
            seed=self.seed * 1_000_003 + self.layer,
        )

    def _own_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """L_f, the network's own loss; none of the tasks with classes looks at the inputs."""
        return self.task.fit_of(self.pruned, outputs, outputs, targets)

    def _note(self, before: Selection | None, now: Selection) -> None:
        """Add a point to the curves; say what was mended."""
        new = len(now.picks) - (0 if before is None else len(before.picks))
        self.picks += new
        if now.losses:
            reconstruction, discrimination = now.terms[-1]
            values = {"reconstruction": reconstruction, "discrimination": discrimination}
            known = {name: value for name, value in values.items() if value is not None}
            self.record(self.picks, layer=self.layer + 1, kept=len(now.kept), loss=now.losses[-1], **known)
        self.notes += now.notes[0 if before is None else len(before.notes) :]

    @torch.no_grad()
    def _finish_layer(self, done: Selection) -> None:
        """Put the layer's new weights in their place."""
        target = self.targets[self.layer]
        layer: Any = self.pruned.get_submodule(target.layer)
        layer.weight.copy_(done.weight)
        if done.bias is not None:
            layer.bias.copy_(done.bias)
        self.keep[target.group.name] = done.kept
        self.final_losses.append(done.losses[-1] if done.losses else done.start_loss)
        self.layer, self.current, self._passes = self.layer + 1, None, None

    def _gone(self) -> dict[str, Tensor]:
        """Which weights of the layers that are done are 0 for good."""
        found = {}
        for target in self.targets[: self.layer]:
            weight: Tensor = self.pruned.get_submodule(target.layer).weight  # type: ignore[assignment]
            mask = torch.ones_like(weight, dtype=torch.bool)
            mask.view(len(weight), target.group.channels, -1)[:, self.keep[target.group.name]] = False
            found[target.layer] = mask
        return found

    def _slice(self, keep: dict[str, list[int]]) -> None:
        self.keep = dict(keep)
        self.pruned = sliced(self.pruned, self.data.shape, self.keep)
        for name, parameter in self.pruned.named_parameters():
            parameter.requires_grad_(name not in self._frozen)
        self.sliced = True

    def on_train_end(self) -> None:
        """A picture of what the first layer's channels see, pruned and selected, into the run's folder.

        Only of a selector that `DRAWS`.
        """
        if not (self.sliced and self.selector.DRAWS):
            return
        target, (unpruned, _) = self.targets[0], self._untouched
        images, _ = self.data.batch("test", slice(0, 1), augment=False)
        maps = input_maps(unpruned, target.layer, images[0]) if images.ndim == 4 else None
        if maps is not None:
            svg = draw(images[0], maps, self.keep[target.group.name], target.layer)
            (Path(self.trainer.default_root_dir) / PICTURE).write_text(svg)

    def _last_loss(self) -> float | None:
        return next((loss for loss in reversed(self.history.get("loss", [])) if loss is not None), None)

    def progress(self) -> Progress:
        counts = [target.kept or target.group.channels for target in self.targets]
        done = sum(counts[: self.layer]) + (0 if self.current is None else len(self.current.picks))
        layer = min(self.layer, len(self.targets) - 1)
        text = f"layer {layer + 1}/{len(self.targets)} {self.targets[layer].layer}"
        loss = self._last_loss()
        return Progress(done, sum(counts), "picks", text + ("" if loss is None else f", loss {loss:.4g}"))

    def results(self) -> dict[str, Any]:
        """The pruned network as it is, what it saves, and what each layer ended with.

        `start_test_error` and its like are those of the network before it was prepared and pruned.
        """
        self.to(self.data.device)
        found: dict[str, Any] = self.task.evaluate(self.pruned, self.data, "test")
        found |= self.task.evaluate(self.pruned, self.data, "train")
        if self.data.has_validation:
            found |= self.task.evaluate(self.pruned, self.data, "validation")
        before = self.task.evaluate(self._untouched[0], self.data, "test")
        found |= {f"start_{name}": value for name, value in before.items()}
        return (
            found
            | saved(self.pruned, self.data.shape, self.whole)
            | error_gaps(found, before)
            | {
                "rate": self.selector.rate,
                "picks": self.picks,
                "layer_losses": self.final_losses,
                "mended_sub_problems": len(self.notes),
                "selection_seconds": self.seconds,
            }
        )

    def search_state(self) -> dict[str, Any]:
        return {
            "layer": self.layer,
            "current": None if self.current is None else self.current.state_dict(),
            "keep": {name: list(kept) for name, kept in self.keep.items()},
            "sliced": self.sliced,
            "final_losses": list(self.final_losses),
            "notes": list(self.notes),
            "picks": self.picks,
            "seconds": self.seconds,
            "stagewise": None if self.stagewise is None else self.stagewise.state_dict(),
        }

    def load_search_state(self, state: dict[str, Any]) -> None:
        self.layer, self.picks, self.seconds = state["layer"], state["picks"], state["seconds"]
        self.current = None if state["current"] is None else Selection.load(state["current"])
        self.keep = state["keep"]
        self.final_losses, self.notes = state["final_losses"], state["notes"]
        if self.stagewise is not None:
            self.stagewise.load_state_dict(state["stagewise"])


def selection_set(data: Any, samples: int | None, seed: int) -> tuple[Tensor, Tensor | None]:
    """The examples that channels are selected by, without augmentation.

    Args:
        data: the data set.
        samples: how many of the training split, each class in its share; None, or more than there are: all.
        seed: of the draw.

    Returns:
        inputs [n, *shape] and targets [n], or None where there are none.
    """
    size = data.size("train")
    if samples is None or samples >= size:
        index = torch.arange(size)
    else:
        generator = torch.Generator().manual_seed(seed + DRAWN)
        index = stratified_subset(data.labels_of("train"), size, samples, generator)
    parts = [data.batch("train", rows, augment=False) for rows in index.split(data.evaluation_batch)]
    targets = [part for _, part in parts if part is not None]
    return torch.cat([inputs for inputs, _ in parts]), torch.cat(targets) if targets else None
