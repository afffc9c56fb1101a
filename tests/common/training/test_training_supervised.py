import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR

from common.base import loader as loaders
from common.base.dataset import SplitName
from common.base.errors import UserError
from common.base.loader import IndexLoader
from common.base.method import TrainingMethod
from common.base.stages import Stage
from common.data.shared.in_memory import TensorData
from common.distillation.ensembles import Snapshot
from common.distillation.hints import KnowledgeDistillation
from common.metrics.parameters import count_parameters
from common.models.char_lstm_crf import CharLstmCrf
from common.models.deepsets import DeepSets
from common.models.mlp import MLP
from common.models.resnet import CifarResNet
from common.runs.callbacks import Checkpoints
from common.runs.processes import Processes
from common.runs.progress import ProgressReport
from common.training import schedules
from common.training.answering import Reader
from common.training.finite import NonFinite
from common.training.schedules import Schedule
from common.training.supervised import SupervisedModule
from papers.yogi.functions import NoisyQuadratic, OnlineLinear

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

CONF = Path(__file__).resolve().parents[3] / "conf" / "dataset"
SMALL = partial(MLP, hidden=[12], activation="relu")
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, foreach=True)


class Line(nn.Module):
    """Linear regression by least squares: with a large step it diverges by a constant factor a step."""

    task: ClassVar = "regression"

    def __init__(self, *, shape: tuple[int, ...], classes: int | None) -> None:
        super().__init__()
        self.linear = nn.Linear(shape[0], 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs).squeeze(1)


@dataclass(frozen=True)
class Case:
    """A short run: by default 2 1/2 epochs of 4 steps on 99 digits, the last batch of an epoch of 3."""

    data: dict[str, Any] = field(default_factory=lambda: {"limit": 110, "validation": 0.1, "batch_size": 32})
    dataset: str = "digits"
    model: Callable[..., nn.Module] = SMALL
    method: Callable[..., torch.optim.Optimizer] = SGD
    # makes what helps the training, in place of the optimizer alone
    helps: Callable[[], TrainingMethod] | None = None
    schedule: Callable[..., Schedule] = schedules.cosine
    epochs: float = 2.5
    test_every: int | None = 1
    measure_gradient: bool = False

    def build(self, initial: int = 0) -> SupervisedModule:
        """A fresh module; `initial` is the seed of the weights and of what is drawn later."""
        config = yaml.safe_load((CONF / f"{self.dataset}.yaml").read_text())
        fixed = {"data_dir": "unused", "seed": 5}
        config |= {key: value for key, value in fixed.items() if key in config} | self.data
        module, _, cls = config.pop("_target_").rpartition(".")
        data: TensorData = getattr(importlib.import_module(module), cls)(**config)
        torch.manual_seed(initial)
        make_model = partial(self.model, shape=data.shape, classes=data.classes)
        return SupervisedModule(
            data=data,
            model=make_model(),
            make_model=make_model,
            method=self.method if self.helps is None else self.helps(),
            schedule=self.schedule,
            seed=5,
            epochs=self.epochs,
            pixels="sum",
            test_every=self.test_every,
            measure_gradient=self.measure_gradient,
        )


class Killed(Exception):
    """Stands for the end of the process."""


class KillAfter(pl.Callback):
    """Ends the process once the module has made so many steps; its checkpoint has been saved by then."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        assert isinstance(module, SupervisedModule)
        if module.steps >= self.steps:
            raise Killed


class Watch(pl.Callback):
    """Notes the last loss, and the learning rate then in force, after every block."""

    def __init__(self) -> None:
        self.losses: list[float | None] = []
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        assert isinstance(module, SupervisedModule)
        self.losses.append(module.last_loss)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def fit(module: SupervisedModule, folder: Path, *watching: pl.Callback) -> SupervisedModule:
    """Train as the runner does, from the folder's checkpoint if there is one; save it after every block."""
    path = folder / "last.ckpt"
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        precision="32-true",
        callbacks=[Checkpoints(path, 0.0, Processes(0, 1)), ProgressReport("test", False), *watching],
        logger=False,
        max_epochs=-1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=str(folder),
    )
    trainer.fit(module, ckpt_path=path if path.exists() else None, weights_only=True)
    return module


@pytest.fixture
def one_step_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is one step."""
    monkeypatch.setattr(loaders, "LARGEST_BLOCK", 1)


@pytest.fixture
def growing_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 1, 2, 4, ... steps, however long they take."""
    monkeypatch.setattr(loaders, "BLOCK_SECONDS", (math.inf, math.inf))


def weights(module: SupervisedModule) -> dict[str, list[float]]:
    return {name: value.flatten().tolist() for name, value in module.model.state_dict().items()}


@dataclass
class HandWritten:
    """What a plain loop gave: the model, the loss of each step, the metrics at the end of each epoch."""

    model: nn.Module
    losses: list[float]
    curves: list[dict[str, float]]


def hand_written(case: Case, steps: int) -> HandWritten:
    """SGD with momentum and cosine decay over `steps` steps, written out."""
    module = case.build()
    data, model = module.data, module.model
    data.setup()
    inputs, targets = data.batch("train", slice(None), augment=False)
    assert targets is not None
    loader = IndexLoader(len(inputs), data.batch_size, seed=5)
    optimizer = case.method(model.parameters())
    scheduler = CosineAnnealingLR(optimizer, steps)
    loss_of = functional.cross_entropy if data.classes else functional.mse_loss
    found = HandWritten(model.train(), [], [])
    for _, (index,) in zip(range(steps), loader, strict=False):
        loss = loss_of(model(inputs[index]), targets[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        found.losses.append(loss.item())
        if loader.at_epoch_end:
            splits: tuple[SplitName, ...] = ("validation", "test") if data.has_validation else ("test",)
            curves = [module.task.evaluate(model, data, split) for split in splits]
            found.curves.append({name: value for curve in curves for name, value in curve.items()})
    return found


@pytest.mark.usefixtures("one_step_blocks")
@pytest.mark.parametrize(("epochs", "steps"), [(2.5, 10), (2.0, 8), (0.3, 1), (0.01, 1)])
def test_a_run_equals_a_hand_written_loop_bit_for_bit(epochs: float, steps: int, tmp_path: Path) -> None:
    case, watch = Case(epochs=epochs), Watch()
    module = fit(case.build(), tmp_path, watch)
    expected = hand_written(case, steps)
    assert watch.losses == expected.losses
    own, theirs = module.model.state_dict(), expected.model.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in theirs)


def test_curves_hold_the_mean_loss_of_each_epoch_the_last_a_fraction(tmp_path: Path) -> None:
    history = fit(Case().build(), tmp_path).history
    losses = hand_written(Case(), 10).losses
    assert history["step"] == [4, 8, 10]
    assert history["epoch"] == [1, 2, 2.5]
    assert history["running_loss"] == [sum(losses[:4]) / 4, sum(losses[4:8]) / 4, sum(losses[8:]) / 2]


def test_test_and_validation_curves_are_those_of_the_right_epochs(tmp_path: Path) -> None:
    case = Case(epochs=5.25, test_every=2)
    module = fit(case.build(), tmp_path)
    curves = hand_written(case, 21).curves
    final = module.results()
    for metric in ("loss", "accuracy"):
        own = module.history[f"validation_{metric}"]
        assert own == [curve[f"validation_{metric}"] for curve in curves] + [final[f"validation_{metric}"]]
        second, fourth = curves[1][f"test_{metric}"], curves[3][f"test_{metric}"]
        last = final[f"test_{metric}"]
        assert module.history[f"test_{metric}"] == [None, second, None, fourth, None, last]


@pytest.mark.parametrize(("epochs", "points"), [(4, 2), (5, 3), (1, 1), (0.5, 1)])
def test_a_curve_of_every_few_epochs_ends_where_the_run_ends(
    epochs: float, points: int, tmp_path: Path
) -> None:
    module = fit(Case(epochs=epochs, test_every=2).build(), tmp_path)
    curve = module.history["test_loss"]
    assert curve[-1] == module.results()["test_loss"]
    assert sum(value is not None for value in curve) == points


def test_without_validation_or_test_every_there_is_only_the_training_loss(tmp_path: Path) -> None:
    module = fit(Case(data={"limit": 50}, test_every=None).build(), tmp_path)
    assert set(module.history) == {"step", "epoch", "running_loss"}


def test_results_are_the_final_models_metrics(tmp_path: Path) -> None:
    module = fit(Case(measure_gradient=True).build(), tmp_path)
    results, task = module.results(), module.task
    expected = {"steps": 10, "epochs": 2.5, "parameters": count_parameters(module.model)}
    for split in ("train", "validation", "test"):
        expected |= task.evaluate(module.model, module.data, split)
    assert results == expected | {"grad_norm_sq": task.full_gradient_norm_sq(module.model, module.data)}


@pytest.mark.parametrize("block", [2, 3, 64])
def test_blocks_change_nothing(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, growing_blocks: None
) -> None:
    case = Case(data={"limit": 110, "batch_size": 7, "augment": "crop_flip"}, epochs=3.4)
    monkeypatch.setattr(loaders, "LARGEST_BLOCK", 1)
    single = fit(case.build(), tmp_path / "single")
    monkeypatch.setattr(loaders, "LARGEST_BLOCK", block)
    watch = Watch()
    several = fit(case.build(), tmp_path / "several", watch)
    assert len(watch.losses) < single.steps
    assert several.history == single.history
    assert weights(several) == weights(single)


def test_losses_that_do_not_add_up_exactly_add_up_alike_in_all_blocks() -> None:
    losses = torch.tensor([1.0, 2.0**-53, 2.0**-53, 2.0**-53])
    sums = set()
    for blocks in ([4], [1, 3], [2, 2], [1, 1, 1, 1]):
        module = Case().build()
        for block in losses.split(blocks):
            module._account(block)
        sums.add(module.epoch_loss)
    assert len(sums) == 1


def test_what_the_task_watches_is_averaged_over_each_epoch_before_its_steps(tmp_path: Path) -> None:
    case = online_case()
    module = fit(case.build(), tmp_path)
    model = case.build().model
    optimizer = case.method(model.parameters())
    schedule = CosineAnnealingLR(optimizer, 10)
    watched = []
    for _, (item,) in zip(range(10), module.data.loader(5), strict=False):
        inputs, _ = module.data.ready(item)
        (x,) = model.parameters()
        watched.append((x + 0.75 * torch.sin(3 * x)).square().sum().item())
        optimizer.zero_grad()
        model(inputs).sum().backward()
        optimizer.step()
        schedule.step()
    means = [sum(watched[:4]) / 4, sum(watched[4:8]) / 4, sum(watched[8:]) / 2]
    assert module.history["mean_grad_norm_sq"] == pytest.approx(means, rel=1e-6)
    results = module.results()
    assert results["mean_grad_norm_sq"] == module.history["mean_grad_norm_sq"][-1]
    assert "test_loss" not in results


def test_a_model_that_projects_is_projected_after_every_step(tmp_path: Path) -> None:
    case = Case(
        dataset="online_counterexample",
        data={"limit": 6},
        model=OnlineLinear,
        method=partial(torch.optim.SGD, lr=10.0),
        schedule=schedules.constant,
        epochs=1.0,
    )
    module = fit(case.build(), tmp_path)
    # steps of 30 and 10 from 0: to -1, +1, +1, -1, +1, +1
    assert module.results()["x"] == 1.0
    regrets = [3 * (0 + 1), -1 * 0, -1 * 2, 3 * 2, -1 * 0, -1 * 2]
    assert module.history["average_regret"] == [pytest.approx(sum(regrets) / 6)]


def plateau_case() -> Case:
    """Steps so large that the training loss keeps rising and falling, so the rate drops more than once."""
    return Case(
        data={"limit": 90, "batch_size": 40},
        method=partial(torch.optim.SGD, lr=2.0),
        schedule=partial(schedules.plateau, factor=0.5, patience=0),
        epochs=4.0,
        test_every=None,
    )


def augmented_case() -> Case:
    """Crops and flips are drawn as the run goes; batch normalisation and Adam have states of their own."""
    return Case(
        data={"limit": 40, "batch_size": 16, "augment": "crop_flip"},
        model=partial(CifarResNet, depth=8, block="basic", shortcut="A"),
        method=partial(torch.optim.Adam, lr=0.01, foreach=True),
        epochs=2.5,
    )


def clouds_case() -> Case:
    """Turns, stretches and dropout are drawn as the run goes."""
    return Case(
        dataset="solids",
        data={"source": "synthetic", "limit": 20, "batch_size": 8, "points": 12},
        model=partial(DeepSets, width=8, dropout=0.5),
        method=partial(torch.optim.Adam, lr=0.01, foreach=True),
        epochs=1.7,
    )


def tagging_case() -> Case:
    """Sentences of any length, dropout, and gradients of a chain that have a recursion of their own."""
    return Case(
        dataset="python_tags",
        data={"source": "synthetic", "limit": 20, "batch_size": 8},
        model=partial(CharLstmCrf, words=20_000, word_size=4, char_size=4, filters=3, hidden=4, dropout=0.5),
        method=partial(torch.optim.Adam, lr=0.01, foreach=True),
        epochs=1.7,
    )


def answering_case() -> Case:
    """Passages of any length, and masks of dropout before each LSTM."""
    sizes: dict[str, Any] = {"word_size": 4, "char_size": 4, "filters": 3, "hidden": 4, "longest_answer": 3}
    return Case(
        dataset="python_questions",
        data={"source": "synthetic", "limit": 20, "batch_size": 8, "words": 60},
        model=partial(Reader, words=60, dropout=0.5, end="attended", **sizes),
        method=partial(torch.optim.Adam, lr=0.01, foreach=True),
        epochs=1.7,
    )


def online_case() -> Case:
    """Noise drawn for each step, and a mean of what the task watches that must survive a kill."""
    return Case(
        dataset="noisy_quadratic",
        data={"limit": 4, "dim": 5},
        model=NoisyQuadratic,
        method=partial(torch.optim.Adam, lr=0.01, foreach=True),
        epochs=2.5,
    )


def composed_case() -> Case:
    """Snapshots of a student that learns from a teacher: what was taken must survive a kill."""
    model = partial(CifarResNet, depth=8, block="basic", shortcut="A")

    def helps() -> TrainingMethod:
        torch.manual_seed(7)
        teacher = Stage(words="", key="", metrics={}, model=model(shape=(1, 8, 8), classes=10))
        weights: dict[str, Any] = {"ce_weight": 0.1, "kd_weight": 0.9, "temperature": 4.0}
        kd = KnowledgeDistillation(optimizer=SGD, teacher=teacher, reduction="sample", **weights)
        return Snapshot(optimizer=SGD, snapshots=2, inner=kd)

    return Case(
        data={"limit": 40, "batch_size": 16},
        model=model,
        helps=helps,
        schedule=partial(schedules.cyclic_cosine, cycles=2),
        epochs=2.0,
    )


CASES = {
    "cosine": Case(),
    "noam": Case(schedule=partial(schedules.noam, scale=1.0, width=4, warmup=5), epochs=1.5),
    "plateau": plateau_case(),
    "crop_flip": augmented_case(),
    "clouds": clouds_case(),
    "tagging": tagging_case(),
    "answering": answering_case(),
    "synthetic": Case(
        dataset="mnist", data={"source": "synthetic", "limit": 60, "batch_size": 25}, epochs=2.0
    ),
    "online": online_case(),
    "composed": composed_case(),
}


@pytest.mark.parametrize("name", CASES)
def test_killed_after_any_step_and_resumed_equals_unbroken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, growing_blocks: None
) -> None:
    case = CASES[name]
    unbroken = fit(case.build(), tmp_path / "unbroken")
    for step in range(1, unbroken.steps + 1):
        folder = tmp_path / str(step)
        with monkeypatch.context() as blocks, pytest.raises(Killed):
            blocks.setattr(loaders, "LARGEST_BLOCK", 1)
            fit(case.build(), folder, KillAfter(step))
        resumed = case.build(initial=step)
        watch = Watch()
        fit(resumed, folder, watch)
        assert bool(watch.losses) is (step < unbroken.steps)
        assert resumed.history == unbroken.history, f"killed after step {step}"
        assert weights(resumed) == weights(unbroken), f"killed after step {step}"
        assert resumed.results() == unbroken.results(), f"killed after step {step}"


@pytest.mark.usefixtures("one_step_blocks")
@pytest.mark.parametrize("name", ["cosine", "plateau", "crop_flip", "online"])
def test_a_run_killed_after_every_step_equals_the_unbroken_one(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    whole = Watch()
    unbroken = fit(case.build(), tmp_path / "unbroken", whole)
    pieces = Watch()
    for step in range(1, unbroken.steps + 1):
        with pytest.raises(Killed):
            fit(case.build(initial=step - 1), tmp_path / "broken", pieces, KillAfter(step))
    resumed = fit(case.build(initial=99), tmp_path / "broken")
    assert pieces.losses == whole.losses
    assert pieces.rates == whole.rates
    assert resumed.history == unbroken.history
    assert weights(resumed) == weights(unbroken)


@pytest.mark.usefixtures("one_step_blocks")
def test_the_plateau_case_drops_its_rate_more_than_once(tmp_path: Path) -> None:
    watch = Watch()
    fit(plateau_case().build(), tmp_path, watch)
    assert len(set(watch.rates)) > 2


@pytest.mark.usefixtures("one_step_blocks")
def test_augmentation_follows_the_global_generator(tmp_path: Path) -> None:
    """So the cases above that augment would not be equal if its state were lost."""
    first_losses = []
    for drawn in (1, 2):
        module, watch = augmented_case().build(), Watch()
        torch.manual_seed(drawn)
        fit(module, tmp_path / str(drawn), watch)
        first_losses.append(watch.losses[0])
    assert first_losses[0] != first_losses[1]


DIVERGING = Case(
    dataset="diabetes",
    data={},
    model=Line,
    method=partial(torch.optim.SGD, lr=1.0),
    epochs=40.0,
    test_every=None,
)


@pytest.mark.parametrize("largest_block", [1, 64])
def test_a_loss_that_is_not_finite_names_its_step_and_the_last_finite_value(
    largest_block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, growing_blocks: None
) -> None:
    monkeypatch.setattr(loaders, "LARGEST_BLOCK", largest_block)
    losses = hand_written(DIVERGING, 120).losses
    step = [math.isfinite(loss) for loss in losses].index(False)
    assert step > 3
    with pytest.raises(NonFinite) as error:
        fit(DIVERGING.build(), tmp_path)
    expected = f"the loss is not finite at step {step} (last finite value: {losses[step - 1]:.6g})"
    assert str(error.value) == expected


def test_a_loss_that_is_not_finite_from_the_start_has_no_last_value(tmp_path: Path) -> None:
    module = DIVERGING.build()
    for parameter in module.model.parameters():
        nn.init.constant_(parameter, math.inf)
    with pytest.raises(NonFinite, match=r"at step 0 \(last finite value: none\)"):
        fit(module, tmp_path)


def test_a_training_whose_loss_grew_tenfold_is_said_to_have_diverged_also_after_a_kill(
    tmp_path: Path,
) -> None:
    diverged = replace(DIVERGING, epochs=3.0)
    with pytest.raises(Killed):
        fit(diverged.build(), tmp_path, KillAfter(8))
    module = fit(diverged.build(), tmp_path)
    (line,) = module.remarks()
    first, last = module.first_loss, module.history["running_loss"][-1]
    assert first is not None
    assert last is not None
    assert first < last / 10
    assert line.startswith(
        f"diverged: the training loss was {first:.3g} at the first step and {last:.3g} in the"
    )


def test_a_training_that_learns_has_nothing_to_remark(tmp_path: Path) -> None:
    module = fit(Case().build(), tmp_path)
    assert module.remarks() == []
    # a network that began with a loss near 0, as one that was trained before, and ends below chance
    module.first_loss = 1e-6
    assert module.remarks() == []


def test_a_model_spoilt_by_its_last_step_is_no_result(tmp_path: Path) -> None:
    case = Case(dataset="diabetes", data={}, model=Line, method=partial(torch.optim.SGD, lr=1e38), epochs=0.1)
    module = fit(case.build(), tmp_path)
    assert module.steps == 1
    with pytest.raises(NonFinite, match=f"final training loss .* step 1 .*{module.last_loss:.6g}"):
        module.results()


@pytest.mark.parametrize(
    ("key", "case"),
    [("epochs", Case(epochs=0.0)), ("epochs", Case(epochs=-1.0)), ("test_every", Case(test_every=0))],
)
def test_a_length_that_is_not_positive_is_refused(key: str, case: Case) -> None:
    with pytest.raises(UserError, match=rf"^paper\.{key}=.*: must be positive and finite$"):
        case.build()


@pytest.mark.usefixtures("one_step_blocks")
def test_progress_counts_epochs(tmp_path: Path) -> None:
    module = Case().build()
    with pytest.raises(Killed):
        fit(module, tmp_path, KillAfter(6))
    progress = module.progress()
    assert (progress.done, progress.total, progress.unit) == (1.5, 2.5, "epochs")
    assert progress.text == f"loss {module.last_loss:.4g}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is available")
def test_results_on_a_gpu_are_made_there(tmp_path: Path) -> None:
    module = Case().build()
    pl.Trainer(accelerator="gpu", devices=1, max_epochs=-1, logger=False, enable_checkpointing=False).fit(
        module
    )
    assert math.isfinite(module.results()["test_loss"])
    assert module.device.type == module.data.device.type == "cuda"
