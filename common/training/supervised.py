"""Supervised training as one LightningModule, for every paper that trains a network by minibatches."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import Any, Literal, TypedDict, Unpack, cast

import torch
from torch import Tensor, nn

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.limits import require
from common.base.loader import BlockLoader
from common.base.method import TrainingMethod
from common.base.model import Model
from common.base.module import PaperModule, Progress
from common.metrics.parameters import count_parameters
from common.training.averaging import MovingAverage, check_decay
from common.training.early_stopping import EarlyStopping
from common.training.finite import NonFinite
from common.training.made_optimizer import made_optimizer, stepping
from common.training.memory import channels_last
from common.training.schedules import Schedule
from common.training.task_of import task_of
from common.training.tasks import project


class Course(TypedDict):
    """What supervised training takes in every paper, whatever its models and methods.

    Attributes:
        data, schedule, seed: built from the config groups.
        epochs: passes over the training split; the last may be a fraction.
        test_every: also measure the test split each so many epochs and at the end, for curves; nothing is
            chosen by it.
    """

    data: DataSet
    schedule: Callable[..., Schedule]
    seed: int
    epochs: float
    test_every: int | None


class Training(Course):
    """What a `SupervisedModule` takes; those of papers add to it.

    Attributes:
        model, method: built from the config groups; `model` is a `Model`; `method` takes parameters and
            gives an optimizer, or is a `TrainingMethod`, which helps the training and has an optimizer of its
            own.
        make_model: gives another network like `model`, with other initial weights.
        pixels: see `Reconstruction`.
        measure_gradient: measure ||grad f||^2 over the whole training split at the end.
    """

    model: nn.Module
    make_model: Callable[[], nn.Module]
    method: Callable[..., torch.optim.Optimizer] | TrainingMethod
    pixels: Literal["sum", "mean"]
    measure_gradient: bool


class SupervisedModule(PaperModule):
    """Minibatch training with any `torch.optim.Optimizer`.

    One `training_step` makes a block of steps, as many as fit a fraction of a second, so that what
    Lightning does around it costs nothing beside a small model; losses stay on the device until the
    block ends. A model with a method `project` has it called after each step: it puts the parameters back
    into their feasible set. What the task watches is averaged over each epoch, like the loss. On a GPU,
    weights of convolutions lie with channels last, and so do the images that pass through them.

    Args:
        settings: see `Training` and `Course`.

    Attributes:
        training_method: what helps the training; of an optimizer alone the one that adds nothing.

    Raises:
        UserError: epochs or test_every not positive.
    """

    STARTS = True

    def __init__(self, **settings: Unpack[Training]) -> None:
        super().__init__()
        self.data, self.seed = settings["data"], settings["seed"]
        self.epochs, self.test_every = settings["epochs"], settings["test_every"]
        self.measure_gradient = settings["measure_gradient"]
        require("positive", "paper", epochs=self.epochs, test_every=self.test_every)
        self.task = task_of(cast(Model, settings["model"]), self.data, settings["pixels"])
        method = settings["method"]
        helps = isinstance(method, TrainingMethod)
        self.training_method = (
            method if isinstance(method, TrainingMethod) else TrainingMethod(optimizer=method)
        )
        # where a config has the optimizer's settings
        self.optimizer_key = "method.optimizer" if helps else "method"
        self.make_schedule = settings["schedule"]
        self.training_method.prepare(self.task, self.epochs)
        self.training_method.check_schedule(self.make_schedule)
        self.model = self.training_method.attach(settings["model"], settings["make_model"], self.data)
        self.loader: BlockLoader
        self.schedule: Schedule
        self.steps = 0
        # a debug run makes so many, whatever the epochs
        self.debug_steps: int | None = None
        self.first_loss: float | None = None
        self.last_loss: float | None = None
        self.epoch_loss, self.epoch_steps = 0.0, 0
        self.epoch_watched: dict[str, float] = {}
        self._schedule_state: dict[str, Any] | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self.stop: EarlyStopping | None = None
        self.clip: float | None = None
        # of the moving average at which the network is judged, and that average once there is an optimizer
        self.decay: float | None = None
        self._average: MovingAverage | None = None
        self._average_state: dict[str, Any] | None = None

    def network(self) -> nn.Module:
        """The network that is left when training is over, without what helped it."""
        return self.training_method.deployed(self.model)

    def handed_on(self) -> nn.Module:
        return self.training_method.handed_on(self.model)

    def finished(self, checkpoint: dict[str, Any]) -> nn.Module:
        """See PaperModule; at the average where iterates are averaged, as evaluations are."""
        network = super().finished(checkpoint)
        optimizer = self._made_optimizer(self._trained())
        if not hasattr(optimizer, "averaged") and self._average is None:
            return network
        self.data.setup()
        self._optimizer = optimizer
        optimizer.load_state_dict(checkpoint["optimizer_states"][0])
        if self._average is not None:
            self._average.load_state_dict(checkpoint["search_state"]["ema"])
        with self._judged():
            return deepcopy(self.network()).eval()

    def stop_early(self, rule: EarlyStopping) -> None:
        self.stop = rule

    def limit_gradients(self, norm: float) -> None:
        if not (norm > 0 and math.isfinite(norm)):
            raise UserError(f"clip={norm}: must be above 0 and finite (valid: null, or the largest norm)")
        self.clip = norm

    def average_weights(self, decay: float) -> None:
        check_decay(decay)
        self.decay = decay

    def setup(self, stage: str) -> None:
        self.data.setup(stage)
        if self.stop is not None and not self.data.has_validation:
            raise UserError(
                f"stop.metric={self.stop.metric}: there is no validation split "
                "(valid: dataset.validation=0.1, or stop=none)"
            )
        # some sets read their test files only when asked: a missing one is said before training
        self.data.size("test")
        self.loader = self.data.loader(self.seed)
        self.training_method.fit_loader(self.loader)

    @property
    def total_steps(self) -> int:
        if self.debug_steps is not None:
            return self.debug_steps
        return max(1, round(self.epochs * self.loader.steps_per_epoch))

    @property
    def epochs_made(self) -> float:
        """Passes over the training split so far."""
        return self.steps / self.loader.steps_per_epoch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.data.move(self.device)
        if self.device.type == "cuda":
            channels_last(self)
        optimizer = self._optimizer = self._made_optimizer(self._trained())
        self.schedule = self.make_schedule(
            optimizer, total_steps=self.total_steps, steps_per_epoch=self.loader.steps_per_epoch
        )
        return optimizer

    def _trained(self) -> list[nn.Parameter]:
        """What is trained; a method may hold the student too: each parameter once, the student's first."""
        return list(dict.fromkeys(p for part in self._parts() for p in part.parameters() if p.requires_grad))

    def _clip(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Clip the whole gradient just before the step that it is for, without waiting for the device."""
        assert self.clip is not None
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, self.clip)

    def _made_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        optimizer = made_optimizer(self.training_method.optimizer, parameters, self.optimizer_key)
        self._average = None if self.decay is None else MovingAverage(optimizer, self.decay)
        return optimizer

    def _parts(self) -> list[nn.Module]:
        """What the optimizer trains."""
        return [self.model, self.training_method]

    @property
    def _finished(self) -> bool:
        stopped = self.stop is not None and self.stop.stopped is not None
        return stopped or self.steps >= self.total_steps

    def train_dataloader(self) -> BlockLoader:
        return self.loader

    def on_train_start(self) -> None:
        self.trainer.should_stop = self._finished
        if self.clip is not None:
            # after the hooks of callbacks, which bring together the gradients of several processes
            optimizer = self.optimizers(use_pl_optimizer=False)
            assert isinstance(optimizer, torch.optim.Optimizer)
            optimizer.register_step_pre_hook(self._clip)

    def training_step(self, block: list[Any], batch_idx: int) -> None:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        started = time.perf_counter()
        losses, watched = [], []
        self.training_method.start_epoch(int(self.epochs_made))
        for item in block[: self.total_steps - self.steps]:
            inputs, targets = self.data.ready(item)
            optimizer.zero_grad(set_to_none=True)
            with _naming_lone_examples(len(inputs)):
                loss = self._backward(inputs, targets)
            with torch.no_grad():
                watched.append(self._watch(inputs))
            with stepping(optimizer, self.training_method.optimizer, self.optimizer_key):
                optimizer.step()
            self._stepped(inputs, targets)
            project(self.model)
            if self._average is not None:
                self._average.step()
            self.schedule.after_step()
            losses.append(loss.detach())
            self.training_method.end_step(self.model, (self.steps + len(losses)) / self.total_steps)
        self._account(torch.stack(losses))
        self._account_watched(watched)
        self._fit_block(time.perf_counter() - started)
        if self.loader.at_epoch_end or self.steps >= self.total_steps:
            self._end_epoch()

    def _backward(self, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """Put the gradients of a minibatch where the optimizer looks for them; the loss."""
        loss = self._loss(inputs, targets)
        loss.backward()
        return loss

    def _watch(self, inputs: Tensor) -> dict[str, Tensor]:
        """What is averaged over the epoch, measured where the step takes its gradient."""
        return self.task.watch(self.model, inputs)

    def _stepped(self, inputs: Tensor, targets: Tensor | None) -> None:
        """To be told of each step when it is made; nothing here."""

    def _loss(self, inputs: Tensor, targets: Tensor | None) -> Tensor:
        return self.training_method.loss(self.model, inputs, targets)

    def _evaluate(self, split: SplitName) -> dict[str, float]:
        """The metrics of a split; where iterates are averaged, at the average."""
        with self._judged():
            own = self.task.evaluate(self.model, self.data, split)
            return own | self.training_method.evaluate(self.model, self.data, split)

    @contextmanager
    def _judged(self) -> Iterator[None]:
        """Within it the network is the one that evaluations judge: at the average of iterates, if any."""
        averaged = getattr(self._average or self._optimizer, "averaged", nullcontext)
        with averaged():
            yield

    def _account(self, losses: Tensor) -> None:
        """Add a block's losses up, the only wait for the device.

        Raises:
            NonFinite: one of them is NaN or infinite.
        """
        values = losses.tolist()
        for offset, value in enumerate(values):
            if not math.isfinite(value):
                raise NonFinite(step=self.steps + offset, last_finite=self.last_loss)
            self.first_loss = value if self.first_loss is None else self.first_loss
            self.last_loss = value
            # one by one: the order of float additions, so the sum, must not depend on the blocks
            self.epoch_loss += value
        self.steps += len(values)
        self.epoch_steps += len(values)

    def _account_watched(self, watched: list[dict[str, Tensor]]) -> None:
        for name in watched[0]:
            for value in torch.stack([step[name] for step in watched]).tolist():
                self.epoch_watched[name] = self.epoch_watched.get(name, 0.0) + value

    def _fit_block(self, seconds: float) -> None:
        """Told how long a block of steps took; the next one's size follows from it."""
        self.loader.fit_block(seconds)

    def _end_epoch(self) -> None:
        """Record the epoch's curves and let the schedule see its mean training loss."""
        epoch = self.epochs_made
        train_loss = self.epoch_loss / self.epoch_steps
        self.schedule.after_epoch(train_loss)
        values = {"running_loss": train_loss}
        values |= {name: total / self.epoch_steps for name, total in self.epoch_watched.items()}
        if self.data.has_validation:
            values |= self._evaluate("validation")
        self.schedule.after_validation(values)
        if self.stop is not None:
            self.stop.after_epoch(epoch, values, last=self.steps >= self.total_steps)
        finished = self._finished
        if self.test_every is not None and (finished or (self.loader.epoch + 1) % self.test_every == 0):
            values |= self._evaluate("test")
        self.record(self.steps, epoch=epoch, **values)
        self.epoch_loss, self.epoch_steps = 0.0, 0
        self.epoch_watched = dict.fromkeys(self.epoch_watched, 0.0)
        self.trainer.should_stop = finished

    def progress(self) -> Progress:
        loss = "" if self.last_loss is None else f"loss {self.last_loss:.4g}"
        total = self.total_steps / self.loader.steps_per_epoch
        return Progress(min(self.epochs_made, total), total, "epochs", loss)

    def results(self) -> dict[str, Any]:
        """Metrics of the final model on each split, and the last epoch's mean of what the task watches.

        Raises:
            NonFinite: the last steps made the training loss NaN or infinite.
        """
        # `fit` leaves the model on the CPU
        self.to(self.data.device)
        found: dict[str, Any] = self._evaluate("test")
        found |= self._evaluate("train")
        if not math.isfinite(found["train_loss"]):
            raise NonFinite(step=self.steps, last_finite=self.last_loss, what="final training loss")
        if self.data.has_validation:
            found |= self._evaluate("validation")
        if self.measure_gradient:
            found["grad_norm_sq"] = self.task.full_gradient_norm_sq(self.model, self.data)
        found |= {name: self.history[name][-1] for name in self.epoch_watched}
        found |= {"steps": self.steps, "epochs": self.epochs_made}
        if self.stop is not None:
            found |= self.stop.results()
        found |= {"parameters": count_parameters(self.network())}
        return found | self.training_method.results(self.model, self.data, found)

    def remarks(self) -> list[str]:
        """That the training has diverged: its loss ended more than 10 times above that of the first step.

        Of classes it must also be as far above log(classes), the loss of a network that knows nothing: a
        network that was trained before begins with a loss near 0.
        """
        if self.first_loss is None or not self.history.get("running_loss"):
            return []
        last = self.history["running_loss"][-1]
        chance = math.log(self.data.classes) if self.data.classes else 0.0
        if last is None or last <= self.first_loss + 10 * max(abs(self.first_loss), chance):
            return []
        return [
            f"diverged: the training loss was {self.first_loss:.3g} at the first step and {last:.3g} in the "
            "last epoch (a smaller learning rate, or clip=1.0, may help)"
        ]

    def search_state(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "first_loss": self.first_loss,
            "last_loss": self.last_loss,
            "epoch": [self.epoch_loss, self.epoch_steps],
            "watched": dict(self.epoch_watched),
            "schedule": self.schedule.state_dict(),
            "stop": None if self.stop is None else self.stop.state_dict(),
            "ema": None if self._average is None else self._average.state_dict(),
        }

    def load_search_state(self, state: dict[str, Any]) -> None:
        self.steps, self.last_loss = state["steps"], state["last_loss"]
        self.first_loss = state.get("first_loss")
        self.epoch_loss, self.epoch_steps = state["epoch"]
        self.epoch_watched = state["watched"]
        self._schedule_state = state["schedule"]
        self._average_state = state.get("ema")
        if self.stop is not None:
            self.stop.load_state_dict(state["stop"])

    def on_fit_start(self) -> None:
        if self._schedule_state is not None:
            self.schedule.load_state_dict(self._schedule_state)
        if self._average is not None and self._average_state is not None:
            self._average.load_state_dict(self._average_state)


@contextmanager
def _naming_lone_examples(count: int) -> Iterator[None]:
    """Say in one line that batch normalisation found a single value a channel.

    Raises:
        UserError: see above; a batch of one example whose maps are 1x1.
    """
    try:
        yield
    except ValueError as error:
        # torch's own words for it; there is no class of its own
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"dataset.batch_size: a batch of {count} example(s) gives batch normalisation a single value a "
            "channel, which has no variance (valid: batches of 2 or more from 2 or more training examples, "
            "or a model without batch normalisation)"
        ) from error
