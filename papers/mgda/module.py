"""mgda as a LightningModule: supervised training of several tasks, and what its directions do to each."""

from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.func import functional_call

from common.base.errors import UserError
from common.training.multi_task import MultiTask
from common.training.supervised import Course, SupervisedModule
from papers.mgda.methods import MGDAUBSafe, MultiTaskMethod
from papers.mgda.min_norm import min_norm_weights
from papers.mgda.networks import MultiTaskNetwork, SeparateNetworks
from papers.mgda.shared import SharedPass, gram

# by how much a loss must rise, relative to its size, to be no rounding
RISE = 1e-6


class MgdaModule(SupervisedModule):
    """Sener, Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018.

    Curves have the mean weight of each task's gradient in every epoch (`weight_NAME`).

    Args:
        model, make_model: see SupervisedModule.
        method: a `MultiTaskMethod`.
        loss_scales: each task's loss is multiplied by its number in training, as if it had other units; null
            for 1.
        diagnostics: hold every step's direction against every task: <g_t, u>, by two more passes through the
            encoder, and the losses of the same minibatch after the step, by one more.
        measure_stationarity: measure min |sum_t a_t g_t|^2 over the whole training split at the end, T
            backward passes through it.
        course: see SupervisedModule.

    Raises:
        UserError: as SupervisedModule; scales that are not positive numbers, one a task; a method that the
            tasks do not fit.
    """

    task: MultiTask

    def __init__(
        self,
        *,
        model: MultiTaskNetwork,
        make_model: Callable[[], MultiTaskNetwork],
        method: MultiTaskMethod,
        loss_scales: list[float] | None,
        diagnostics: bool,
        measure_stationarity: bool,
        **course: Unpack[Course],
    ) -> None:
        last_shared = model.last_shared()
        super().__init__(
            model=SeparateNetworks(make_model, len(model.heads)) if method.separate else model,
            make_model=make_model,
            method=method.optimizer,
            pixels="mean",
            measure_gradient=False,
            **course,
        )
        self._check(method, diagnostics or measure_stationarity, loss_scales)
        self.method = method
        method.start(self.task.specs, last_shared)
        self.loss_scales: Tensor
        self.register_buffer("loss_scales", torch.tensor(loss_scales or [1.0] * len(self.task.specs)), False)
        self.diagnostics, self.measure_stationarity = diagnostics, measure_stationarity
        self.shared: SharedPass | None = None
        self.weights: Tensor | None = None
        # of all steps: how many, those whose u is no descent for a task, those after which a task's loss was
        # higher; and the least min_t <g_t, u> / |u|^2
        self.counts = {"steps": 0, "ascents": 0, "rises": 0}
        self.worst_descent = float("inf")
        self.train_seconds = 0.0

    def _check(self, method: MultiTaskMethod, needs_shared: bool, scales: list[float] | None) -> None:
        if method.separate and needs_shared:
            raise UserError(
                "paper.diagnostics, paper.measure_stationarity: separate networks share no gradients "
                "(valid with this method: false)"
            )
        names = [spec.name for spec in self.task.specs]
        if scales is not None and (len(scales) != len(names) or not all(scale > 0 for scale in scales)):
            raise UserError(
                f"paper.loss_scales={scales}; valid: null, or {len(names)} numbers > 0, "
                f"one for each of {', '.join(names)}"
            )

    def _parts(self) -> list[nn.Module]:
        return [self.model, self.method]

    def _losses(self, outputs: Any, targets: Tensor) -> Tensor:
        return self.task.losses(outputs, targets) * self.loss_scales

    def _pass(self, inputs: Tensor, targets: Tensor) -> SharedPass:
        assert isinstance(self.model, MultiTaskNetwork)
        return SharedPass(
            self.model.encoder,
            list(self.model.heads),
            inputs,
            lambda outputs: self._losses(outputs, targets),
            keep_graph=self.diagnostics,
        )

    def _backward(self, inputs: Tensor, targets: Tensor | None) -> Tensor:
        assert targets is not None
        if self.method.separate:
            losses = self._losses(self.task.split(self.model(inputs)), targets)
            losses.sum().backward()
            return losses.detach().mean()
        self.shared = self._pass(inputs, targets)
        self.weights = self.method.backward(self.shared)
        if self.diagnostics:
            self._diagnose_direction(self.shared)
        return self.shared.losses.detach().mean()

    def _watch(self, inputs: Tensor) -> dict[str, Tensor]:
        """The weights of the step."""
        if self.weights is None:
            return {}
        return {
            f"weight_{spec.name}": weight
            for spec, weight in zip(self.task.specs, self.weights.detach().float(), strict=True)
        }

    def _stepped(self, inputs: Tensor, targets: Tensor | None) -> None:
        if self.diagnostics:
            assert self.shared is not None and targets is not None
            self._diagnose_step(self.shared.losses.detach(), inputs, targets)
        # its graph is not needed any more
        self.shared = None

    def _diagnose_direction(self, shared: SharedPass) -> None:
        """Hold <g_t, u> against |u|^2."""
        found = shared.descents()
        self.counts["steps"] += 1
        self.counts["ascents"] += bool(found.rises)
        self.worst_descent = min(self.worst_descent, float(found.ratio))

    @torch.no_grad()
    def _diagnose_step(self, before: Tensor, inputs: Tensor, targets: Tensor) -> None:
        """Hold the losses after the step against those before; neither draws nor statistics are used up."""
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        with torch.random.fork_rng():
            outputs = functional_call(self.model, buffers, (inputs,))
        after = self._losses(self.task.split(outputs), targets)
        self.counts["rises"] += bool((after - before > RISE * (1 + before.abs())).any())

    def _fit_block(self, seconds: float) -> None:
        super()._fit_block(seconds)
        self.train_seconds += seconds

    def results(self) -> dict[str, Any]:
        """SupervisedModule's; with diagnostics the shares of steps that were no common descent.

        Returns:
            train_hours: of training steps, evaluations apart. ascent_share, rise_share: shares of the steps
            whose u was an ascent direction for some task, and after which some task's loss was higher on the
            same minibatch. descent_worst: the least min_t <g_t, u> / |u|^2 (at least 1 for exact MGDA
            without normalisers). min_norm_sq: see `measure_stationarity`. fallback_share: of steps that were
            exact, of `mgda_ub_safe`.
        """
        found = super().results() | {"train_hours": self.train_seconds / 3600}
        if self.diagnostics:
            for kind in ("ascent", "rise"):
                found[f"{kind}_share"] = self.counts[f"{kind}s"] / self.counts["steps"]
            found["descent_worst"] = self.worst_descent
        if isinstance(self.method, MGDAUBSafe):
            found["fallback_share"] = float(self.method.fallbacks) / self.steps
        if self.measure_stationarity:
            found["min_norm_sq"] = self._stationarity()
        return found

    def _stationarity(self) -> float:
        """min |sum_t a_t g_t|^2 for the gradients of the losses over the whole training split."""
        self.model.eval()
        size = self.data.size("train")
        sums: list[Tensor] = []
        for inputs, targets in self.data.batches("train", self.data.evaluation_batch):
            assert targets is not None
            shared = self._pass(inputs, targets)
            shared.backward_heads()
            parts = [part * (len(inputs) / size) for part in shared.encoder_gradients(batched=False)]
            sums = [old + new for old, new in zip(sums, parts, strict=True)] if sums else parts
        self.model.zero_grad(set_to_none=True)
        matrix = gram(sums)
        weights = min_norm_weights(matrix)
        return float(weights @ matrix @ weights)

    def search_state(self) -> dict[str, Any]:
        own = {
            "counts": dict(self.counts),
            "worst_descent": self.worst_descent,
            "train_seconds": self.train_seconds,
        }
        return super().search_state() | own

    def load_search_state(self, state: dict[str, Any]) -> None:
        super().load_search_state(state)
        self.counts, self.worst_descent = state["counts"], state["worst_descent"]
        self.train_seconds = state["train_seconds"]
