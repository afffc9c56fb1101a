"""sdp_cert as LightningModules: robust training, certification by examples, and random +-1 networks."""

import sys
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.loader import RoundLoader
from common.base.module import PaperModule, Progress
from common.data.shared.in_memory import ImageData
from common.training.supervised import Course, SupervisedModule
from papers.sdp_cert.bounds import input_box
from papers.sdp_cert.certifiers import Certifier, Examples
from papers.sdp_cert.examples_page import write_pictures
from papers.sdp_cert.network import ReluNetwork, check_reading, read_network
from papers.sdp_cert.networks import OfficialNetwork
from papers.sdp_cert.random_signs import RandomSigns, exact_value, sign_box
from papers.sdp_cert.robust import RobustTraining
from papers.sdp_cert.verdicts import Judged, judge, summary


def sdp_cert(
    *,
    model: nn.Module,
    make_model: Callable[[], nn.Module],
    method: Certifier | RobustTraining,
    eps: float,
    clip_input: bool,
    examples: int | None,
    first: int,
    batch: int,
    **course: Unpack[Course],
) -> PaperModule:
    """The module that a method asks for.

    Args:
        model, make_model, method: built from the config groups.
        eps: radius of the attack, in pixels of [0, 1].
        clip_input: whether attacked inputs stay in [0, 1].
        examples: of the test set, in order (the paper's, for its networks); null for all. Of random networks:
            how many are drawn.
        first: number of the first one.
        batch: examples a step; a killed run goes on at the next batch.
        course: see `Course`; all but `data` and `seed` count for `robust/` methods alone.

    Raises:
        UserError: a number out of range.
    """
    if isinstance(method, RobustTraining):
        return SupervisedModule(
            model=model, make_model=make_model, method=method, pixels="mean", measure_gradient=False, **course
        )
    data, seed = course["data"], course["seed"]
    _check("eps", eps, 0 <= eps < float("inf"), "a finite number >= 0")
    _check("examples", examples, examples is None or examples >= 1, "at least 1, or null for all")
    _check("first", first, first >= 0, "at least 0")
    _check("batch", batch, batch >= 1, "at least 1")
    if isinstance(model, RandomSigns):
        return RandomSignsModule(
            data=data, model=model, method=method, seed=seed, eps=eps, examples=examples, batch=batch
        )
    assert isinstance(data, ImageData)
    return CertifyModule(
        data=data,
        model=model,
        method=method,
        seed=seed,
        eps=eps,
        clip_input=clip_input,
        examples=examples,
        first=first,
        batch=batch,
    )


def _check(key: str, value: object, valid: bool, advice: str) -> None:
    if not valid:
        raise UserError(f"paper.{key}={value}; valid: {advice}")


class _Solves(PaperModule):
    """A batch of examples a training step until all are done; what is done travels in the checkpoint."""

    total: int
    batch_size: int

    def __init__(self) -> None:
        super().__init__()
        self.done = 0
        self.seconds = 0.0

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader()

    def on_train_start(self) -> None:
        self.trainer.should_stop = self.done >= self.total

    def training_step(self, batch: int, batch_idx: int) -> None:
        began = time.perf_counter()
        stop = min(self.done + self.batch_size, self.total)
        with torch.enable_grad():
            self.solve(self.done, stop)
        self.done = stop
        self.seconds += time.perf_counter() - began
        self.note()
        self.trainer.should_stop = self.done >= self.total

    @abstractmethod
    def solve(self, start: int, stop: int) -> None:
        """Certify examples start..stop-1."""

    @abstractmethod
    def note(self) -> None:
        """Add a point to the curves."""

    def search_state(self) -> dict[str, Any]:
        return {"done": self.done, "seconds": self.seconds}

    def load_search_state(self, state: dict[str, Any]) -> None:
        self.done, self.seconds = state["done"], state["seconds"]


class CertifyModule(_Solves):
    """Certifies test images of one network; see `sdp_cert` for the arguments.

    Raises:
        UserError: inputs that are not in [0, 1], a network that cannot be certified, no such images.
    """

    data: ImageData

    def __init__(
        self,
        *,
        data: ImageData,
        model: nn.Module,
        method: Certifier,
        seed: int,
        eps: float,
        clip_input: bool,
        examples: int | None,
        first: int,
        batch: int,
    ) -> None:
        super().__init__()
        if data.normalise != "unit_interval":
            raise UserError(
                f"dataset.normalise={data.normalise}: eps is in pixels of [0, 1] (valid: unit_interval)"
            )
        self.data, self.model, self.method = data, model, method
        self.seed, self.eps, self.clip_input = seed, eps, clip_input
        self.examples, self.first, self.batch_size = examples, first, batch
        self.judged: list[Judged] = []
        self.certified: ReluNetwork

    def setup(self, stage: str) -> None:
        self.data.setup(stage)
        size = self.data.size("test")
        _check("first", self.first, self.first < size, f"0 to {size - 1}")
        left = size - self.first
        _check("examples", self.examples, (self.examples or 1) <= left, f"1 to {left}, or null for all")
        self.total = left if self.examples is None else self.examples
        order = None
        # with synthetic data the weights are random too: a trial without any file
        if isinstance(self.model, OfficialNetwork) and self.data.source == "real":
            self.model.load()
            order = self.model.order()
        self.order = torch.arange(size) if order is None or len(order) != size else order
        self.certified = read_network(self.model, self.data.shape)

    def network(self) -> nn.Module:
        return self.model

    def solve(self, start: int, stop: int) -> None:
        index = self.order[self.first + start : self.first + stop]
        inputs, labels = self.data.batch("test", index, augment=False)
        assert labels is not None
        x = inputs.flatten(1).double().to(self.device)
        box = input_box(x, self.eps, self.clip_input)
        check_reading(self.model, self.certified, self.data.shape, x, box.lower, box.upper)
        examples = Examples(
            network=self.certified.to(self.device),
            x=x,
            labels=labels.to(self.device),
            box=box,
            eps=self.eps,
            seed=self.seed * 1_000_003 + self.first + start,
        )
        self.judged += judge(self.method, examples, index.tolist())

    def note(self) -> None:
        found = summary(self.judged, self.method)
        self.record(self.done, noncertified_error=found["noncertified_error"])

    def on_train_end(self) -> None:
        """The report of all examples, into the run's folder."""
        if self.done < self.total:
            return
        index = torch.tensor([one.index for one in self.judged])
        images = torch.cat([self.data.batch("test", part, augment=False)[0] for part in index.split(1000)])
        write_pictures(Path(self.trainer.default_root_dir), self.judged, images, self.eps)

    def progress(self) -> Progress:
        if not self.judged:
            return Progress(0, self.total, "examples", "")
        found = summary(self.judged, self.method)
        text = f"not certified {found['noncertified_error']:.1f} %"
        return Progress(self.done, self.total, "examples", text)

    def results(self) -> dict[str, Any]:
        """See `verdicts.summary`; seconds: of certification, and seconds_per_example."""
        found = summary(self.judged, self.method)
        if found["solver_failures"]:
            count = found["solver_failures"]
            print(
                f"[sdp_cert] a solver failed on {count} targets: their last valid bounds count, or those of "
                "interval arithmetic (solver_failures)",
                file=sys.stderr,
            )
        return found | {
            "seconds": round(self.seconds, 3),
            "seconds_per_example": round(self.seconds / self.total, 4),
        }

    def search_state(self) -> dict[str, Any]:
        return super().search_state() | {"judged": [asdict(one) for one in self.judged]}

    def load_search_state(self, state: dict[str, Any]) -> None:
        super().load_search_state(state)
        self.judged = [Judged(**one) for one in state["judged"]]


class RandomSignsModule(_Solves):
    """Bounds over the exact value on random +-1 networks; see `sdp_cert` for the arguments."""

    def __init__(
        self,
        *,
        data: DataSet,
        model: RandomSigns,
        method: Certifier,
        seed: int,
        eps: float,
        examples: int | None,
        batch: int,
    ) -> None:
        super().__init__()
        _check("eps", eps, eps > 0, "above 0: the exact value is 0 at 0")
        if examples is None:
            raise UserError("paper.examples=null: say how many random networks to draw")
        self.data, self.model, self.method = data, model, method
        self.seed, self.eps, self.total, self.batch_size = seed, eps, examples, batch
        self.ratios: dict[str, list[float]] = {}

    def solve(self, start: int, stop: int) -> None:
        assert isinstance(self.model, RandomSigns)
        for number in range(start, stop):
            network = self.model.draw(self.seed * 1_000_003 + number)
            box, _ = sign_box(network, self.eps)
            exact = exact_value(network, self.eps)
            examples = Examples(
                network=network,
                x=box.center,
                labels=torch.tensor([1]),
                box=box,
                eps=self.eps,
                seed=number,
            )
            for one in (*self.method.before, self.method):
                found = one.bounds(examples, torch.ones(1, 1, dtype=torch.bool))
                bound = found.lower if found.upper is None else found.upper
                if bound is not None:
                    self.ratios.setdefault(one.NAME, []).append(float(bound) / exact)

    def note(self) -> None:
        self.record(self.done, **{f"{name}_over_exact": sum(r) / len(r) for name, r in self.ratios.items()})

    def progress(self) -> Progress:
        text = ", ".join(f"{name} {sum(r) / len(r):.3g}" for name, r in self.ratios.items())
        return Progress(self.done, self.total, "networks", text)

    def results(self) -> dict[str, Any]:
        """Mean, least and largest of each method's bound over the exact value."""
        found: dict[str, Any] = {"seconds": round(self.seconds, 3)}
        for name, ratios in self.ratios.items():
            found[f"{name}_over_exact"] = sum(ratios) / len(ratios)
            found[f"{name}_over_exact_least"], found[f"{name}_over_exact_most"] = min(ratios), max(ratios)
        return found

    def search_state(self) -> dict[str, Any]:
        return super().search_state() | {"ratios": {name: list(r) for name, r in self.ratios.items()}}

    def load_search_state(self, state: dict[str, Any]) -> None:
        super().load_search_state(state)
        self.ratios = state["ratios"]
