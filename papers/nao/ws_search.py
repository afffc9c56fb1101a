"""NAO-WS: one network holds all weights; a pool of architectures is scored by it, and renewed."""

import math
from abc import abstractmethod
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Generic, TypedDict, Unpack, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.architectures.evaluate import Job, Workers, evaluate_all
from common.architectures.objective import ArchitectureObjective
from common.architectures.record import Evaluated, Record
from common.architectures.space import A
from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.limits import require
from common.base.loader import BlockLoader
from common.base.module import UNDER_WAY, PaperModule, Progress
from common.data.text.text_data import TextData
from common.metrics.parameters import count_parameters
from common.training.finite import NonFinite
from common.training.language import Penalties
from common.training.made_optimizer import made_optimizer
from papers.nao.cell import ConvArchitecture
from papers.nao.child_training import ChildObjective, ChildRecipe
from papers.nao.epd import EPD
from papers.nao.gradient_search import fit_epd, new_architectures, scaled
from papers.nao.network import NAONet
from papers.nao.recurrent_cell import RecurrentCell
from papers.nao.recurrent_network import RecurrentNet
from papers.nao.recurrent_search import RecurrentObjective, RecurrentRecipe, require_recurrent
from papers.nao.search import SearchBudget
from papers.nao.searcher import EmbeddingGradient
from papers.nao.shared import SharedNet, SharedRecurrentNet
from papers.nao.space import ConvSpace, RecurrentSpace, Tokens


class PoolSettings(TypedDict):
    """How a shared network and its pool are treated, whatever the space.

    Attributes:
        searcher: encoder, predictor and decoder with their settings; `initial` is the size of the pool.
        optimizer: of the shared network, and of the trainings from scratch.
        epochs: of the shared network.
        rounds: how often the pool is scored, at equal distances; after all but the last it is renewed.
        renewed: the share of the pool that gradient steps replace, the worst first.
        fresh: the share that is drawn at random in addition.
        batch: examples (texts: streams) of the one validation batch by which an architecture is scored.
        clip: largest norm of a gradient.
    """

    searcher: EmbeddingGradient
    optimizer: Any
    epochs: int
    rounds: int
    renewed: float
    fresh: float
    batch: int
    clip: float


class SharedSearch:
    """What is searched with shared weights, and how.

    Args:
        space: of the architectures.
        settings: see `PoolSettings`.

    Raises:
        UserError: a value out of range, or a pool that is replaced as a whole.
    """

    STAGES: ClassVar[tuple[str, ...]] = ()

    def __init__(self, space: Any, **settings: Unpack[PoolSettings]) -> None:
        self.space, self.searcher, self.optimizer = space, settings["searcher"], settings["optimizer"]
        self.epochs, self.rounds = settings["epochs"], settings["rounds"]
        self.batch, self.clip = settings["batch"], settings["clip"]
        self.renewed, self.fresh = settings["renewed"], settings["fresh"]
        require("at least 1", "method", epochs=self.epochs, rounds=self.rounds, batch=self.batch)
        require("from 0 to 1", "method", renewed=self.renewed, fresh=self.fresh)
        require("positive", "method", clip=self.clip)
        if self.renewed + self.fresh >= 1:
            raise UserError(f"method.renewed={self.renewed}, fresh={self.fresh}; valid: less than 1 together")
        if self.rounds > self.epochs:
            raise UserError(f"method.rounds={self.rounds}; valid: 1 to the {self.epochs} epochs")


class SharedConvSearch(SharedSearch):
    """A search for the cells of a network of images with shared weights.

    Args:
        nodes, operations, one_cell, tokens: of the space.
        settings: see `PoolSettings`.
    """

    def __init__(
        self,
        *,
        nodes: int,
        operations: list[str],
        one_cell: bool,
        tokens: Tokens,
        **settings: Unpack[PoolSettings],
    ) -> None:
        super().__init__(ConvSpace(nodes, tuple(operations), one_cell, tokens), **settings)


class SharedRecurrentSearch(SharedSearch):
    """A search for a recurrent cell with shared weights.

    Args:
        steps: of a cell.
        settings: see `PoolSettings`.
    """

    def __init__(self, *, steps: int, **settings: Unpack[PoolSettings]) -> None:
        super().__init__(RecurrentSpace(steps), **settings)


class SharedSearchModule(PaperModule, Generic[A]):
    """Luo et al., NeurIPS 2018, with shared weights.

    Each minibatch trains the shared network as one architecture of the pool, all alike probable. The pool
    is scored `rounds` times, each architecture on one random batch of the validation split. The same encoder,
    predictor and decoder go on learning from each scoring. The best `rerank` of the last one are trained
    from scratch.

    Args:
        data: what is learnt from.
        shared: the network.
        full: the trainings from scratch.
        method: see `SharedSearch`.
        seed: of everything that is random.
        settings: see `SearchBudget`; evaluations and batch are the pool's.
    """

    def __init__(
        self,
        *,
        data: DataSet,
        shared: nn.Module,
        full: ArchitectureObjective[A],
        method: SharedSearch,
        seed: int,
        **settings: Unpack[SearchBudget],
    ) -> None:
        super().__init__()
        self.data, self.shared, self.full, self.method, self.seed = data, shared, full, method, seed
        self.split, self.rerank = settings["score_split"], settings["rerank"]
        self.steps_in_full, self.clip = settings["steps"], method.clip
        self.workers = Workers(settings["processes"], settings["launcher"], settings["threads"])
        self.epd = EPD(method.space.grammar, method.searcher.settings)
        for parameter in self.epd.parameters():
            # trained by a loop of its own, not by the run's optimizer
            parameter.requires_grad_(False)
        random = np.random.default_rng((seed % 2**64, 2))
        self.pool: list[A] = [method.space.sample(random) for _ in range(method.searcher.initial)]
        self.scores: list[float] = []
        self.made, self.last_loss = 0, float("nan")
        self.ranked: Record[A] = Record()
        self.loader: BlockLoader

    @abstractmethod
    def loss_of(self, inputs: Tensor, targets: Tensor, architecture: A) -> Tensor:
        """The training loss of a minibatch, as an architecture."""

    @abstractmethod
    def score_of(self, architecture: A, random: np.random.Generator) -> float:
        """What an architecture does on one random batch of the split to judge by; larger is better."""

    def setup(self, stage: str) -> None:
        self.data.setup(stage)
        self.data.size(self.split)
        self.loader = self.data.loader(self.seed)

    def train_dataloader(self) -> BlockLoader:
        return self.loader

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.data.move(self.device)
        recipe: Any = getattr(self.full, "recipe", None)
        self.full.recipe = recipe._replace(device=str(self.device))  # type: ignore[attr-defined]
        return made_optimizer(self.method.optimizer, list(self.shared.parameters()), "method.optimizer")

    @property
    def total_steps(self) -> int:
        """Of the shared network."""
        return self.method.epochs * self.loader.steps_per_epoch

    def on_train_start(self) -> None:
        self.trainer.should_stop = self.made >= self.total_steps

    def training_step(self, block: list[Any], batch_idx: int) -> None:
        """Some minibatches, and at its time a scoring."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        self.shared.train()
        for item in block:
            inputs, targets = self.data.ready(item)
            assert targets is not None
            # which one follows from (seed, step): nothing of it has to be kept
            number = int(np.random.default_rng((self.seed % 2**64, 3, self.made)).integers(len(self.pool)))
            optimizer.zero_grad(set_to_none=True)
            loss = self.loss_of(inputs, targets, self.pool[number])
            loss.backward()
            nn.utils.clip_grad_norm_(self.shared.parameters(), self.clip)
            optimizer.step()
            if not bool(loss.isfinite()):
                raise NonFinite(step=self.made, last_finite=self.last_loss)
            self.made, self.last_loss = self.made + 1, float(loss.detach())
        if self.loader.at_epoch_end:
            epoch = self.loader.epoch + 1
            ends = {
                self.method.epochs * (number + 1) // self.method.rounds
                for number in range(self.method.rounds)
            }
            if epoch in ends:
                self._score()
                if epoch < self.method.epochs:
                    self._renew()
        self.trainer.should_stop = self.made >= self.total_steps

    @torch.no_grad()
    def _score(self) -> None:
        """Score the pool, best first."""
        # scoring must leave the running statistics as they are
        kept = {name: value.clone() for name, value in self.shared.named_buffers()}
        scores = []
        for number, architecture in enumerate(self.pool):
            random = np.random.default_rng((self.seed % 2**64, 4, self.made, number))
            scores.append(self.score_of(architecture, random))
        for name, value in self.shared.named_buffers():
            value.copy_(kept[name])
        order = sorted(range(len(scores)), key=lambda k: -scores[k])
        self.pool, self.scores = [self.pool[k] for k in order], [scores[k] for k in order]
        self.record(self.made, pool_mean=float(np.mean(scores)), pool_best=max(scores), loss=self.last_loss)

    def _renew(self) -> None:
        """Let the three networks learn from the scores, and replace the worst of the pool."""
        searcher, grammar = self.method.searcher, self.method.space.grammar
        tokens = grammar.tensor(self.pool)
        seed = (self.seed * 1_000_003 + self.made) % 2**62
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            self.epd.cpu().requires_grad_(True)
            targets = scaled(torch.tensor(self.scores, dtype=torch.float64), searcher.predicts)
            fit_epd(self.epd, grammar, tokens, targets, searcher.fitting, seed)
        known = {one.key for one in self.pool}
        wanted = round(self.method.renewed * len(self.pool))
        found = new_architectures(
            self.epd, grammar, tokens[: searcher.top], searcher.steps, searcher.predicts, wanted, known
        )
        self.epd.requires_grad_(False).to(self.device)
        random = np.random.default_rng((self.seed % 2**64, 5, self.made))
        fresh = [self.method.space.sample(random) for _ in range(round(self.method.fresh * len(self.pool)))]
        new = [one.architecture for one in found] + fresh
        if new:
            self.pool[-len(new) :] = new

    def progress(self) -> Progress:
        text = f"best {self.scores[0]:.4g}" if self.scores else f"loss {self.last_loss:.4g}"
        steps = self.loader.steps_per_epoch
        return Progress(self.made / steps, self.total_steps / steps, "epochs", text)

    def results(self) -> dict[str, Any]:
        """The pool's scores, and what the best of it are when trained from scratch.

        pool_mean, pool_best: of the last scoring. found, its code, and found_...: of the best from scratch
        its measures and costs. params_millions. shared_parameters: of the shared network.
        """
        folder = Path(self.trainer.default_root_dir) / UNDER_WAY
        jobs = [
            Job(self.full, architecture, self.steps_in_full, folder / f"full_{number}.json")
            for number, architecture in enumerate(islice(dict.fromkeys(self.pool), self.rerank))
        ]
        for item in evaluate_all(jobs, self.workers):
            self.ranked.add(item)
        best: list[Evaluated[A]] = self.ranked.best(1)
        if not best:
            raise UserError(f"none of the {len(jobs)} trainings from scratch gave a score")
        found: dict[str, Any] = {f"found_{k}": v for k, v in {**best[0].measures, **best[0].costs}.items()}
        found |= {"pool_mean": float(np.mean(self.scores)), "pool_best": self.scores[0]}
        found |= {"found": list(self.method.space.encode(best[0].architecture))}
        found |= {"params_millions": found["found_parameters"] / 1e6}
        return found | {"steps": self.made, "shared_parameters": count_parameters(self.shared)}

    def search_state(self) -> dict[str, Any]:
        pool = [list(self.method.space.encode(one)) for one in self.pool]
        return {"pool": pool, "scores": self.scores, "made": self.made, "last_loss": self.last_loss}

    def load_search_state(self, state: dict[str, Any]) -> None:
        self.pool = [self.method.space.decode(tuple(code)) for code in state["pool"]]
        self.scores, self.made, self.last_loss = state["scores"], state["made"], state["last_loss"]


class SharedConvSearchModule(SharedSearchModule[ConvArchitecture]):
    """NAO-WS for the cells of a network of images.

    Scores are accuracies in percent, batch normalisation as in training.

    Args:
        data: the images.
        model: a `NAONet`, whose settings the shared network has.
        method, seed, settings: see `SharedSearchModule`.

    Raises:
        UserError: a model without cells.
    """

    def __init__(
        self,
        *,
        data: DataSet,
        model: NAONet,
        method: SharedConvSearch,
        seed: int,
        **settings: Unpack[SearchBudget],
    ) -> None:
        if not isinstance(model, NAONet):
            raise UserError(f"model: {type(model).__name__} has no cells to search (valid: model=naonet)")
        assert data.classes is not None
        sizes = {"cells": model.settings["cells"], "filters": model.settings["filters"]}
        shared = SharedNet(method.space, shape=data.shape, classes=data.classes, **sizes)
        split = settings["score_split"]
        recipe = ChildRecipe(method.optimizer, 1.0, method.clip, 0, seed, settings["score"], split, "cpu")
        full = ChildObjective(method.space, model, data, recipe, True)
        super().__init__(data=data, shared=shared, full=full, method=method, seed=seed, **settings)

    def loss_of(self, inputs: Tensor, targets: Tensor, architecture: ConvArchitecture) -> Tensor:
        return functional.cross_entropy(self.shared(inputs, architecture), targets)

    def score_of(self, architecture: ConvArchitecture, random: np.random.Generator) -> float:
        self.shared.train()
        rows = torch.from_numpy(random.permutation(self.data.size(self.split))[: self.method.batch])
        inputs, targets = self.data.batch(self.split, rows, augment=False)
        assert targets is not None
        return 100 * float((self.shared(inputs, architecture).argmax(1) == targets).double().mean())

    def results(self) -> dict[str, Any]:
        """The shared results; error: 100 less the found network's test accuracy."""
        found = super().results()
        return found | {"error": 100 - found["found_test"]}


class SharedRecurrentSearchModule(SharedSearchModule[RecurrentCell]):
    """NAO-WS for a recurrent cell: scores are losses of one window, negated.

    The state goes on from window to window, whichever cells of the pool read them, and begins anew with each
    epoch.

    Args:
        data: the text.
        model: a `RecurrentNet`, whose size the shared network has.
        method, seed, settings: see `SharedSearchModule`.
        penalties: of trainings, see `Penalties`.
        varied_bptt: of the trainings from scratch, see `Language`.

    Raises:
        UserError: a model without a cell, data that are no text.
    """

    def __init__(
        self,
        *,
        data: DataSet,
        model: RecurrentNet,
        method: SharedRecurrentSearch,
        seed: int,
        penalties: Penalties,
        varied_bptt: bool,
        **settings: Unpack[SearchBudget],
    ) -> None:
        text = require_recurrent(data, model)
        assert data.classes is not None
        split = settings["score_split"]
        recipe = RecurrentRecipe(method.optimizer, method.clip, penalties, varied_bptt, seed, split, "cpu")
        full = RecurrentObjective(method.space, model, text, recipe, True)
        shared = SharedRecurrentNet(method.space.steps, data.classes, model.size)
        super().__init__(data=data, shared=shared, full=full, method=method, seed=seed, **settings)
        self.penalties = penalties
        self.state: Tensor | None = None

    def limit_gradients(self, norm: float) -> None:
        """Scale gradients of the trainings from scratch down to the norm `norm` where they are longer.

        Raises:
            UserError: a norm that is not positive.
        """
        if not (norm > 0 and math.isfinite(norm)):
            raise UserError(f"clip={norm}: must be above 0 and finite (valid: null, or the largest norm)")
        assert isinstance(self.full, RecurrentObjective)
        self.full.recipe = self.full.recipe._replace(clip=norm)

    def loss_of(self, inputs: Tensor, targets: Tensor, architecture: RecurrentCell) -> Tensor:
        network = cast(SharedRecurrentNet, self.shared)
        passed = network.run(inputs, self.state, architecture)
        self.state = None if self.loader.at_epoch_end else passed.state.detach()
        loss = functional.cross_entropy(passed.logits.flatten(0, 1), targets.flatten())
        return loss + self.penalties.of(passed)

    def score_of(self, architecture: RecurrentCell, random: np.random.Generator) -> float:
        assert isinstance(self.data, TextData)
        last = max(1, self.data.size(self.split) - self.data.bptt)
        starts = torch.from_numpy(random.integers(last, size=self.method.batch))
        inputs, targets = self.data.batch(self.split, starts, augment=False)
        assert targets is not None
        logits = cast(SharedRecurrentNet, self.shared).run(inputs, None, architecture).logits
        return -float(functional.cross_entropy(logits.flatten(0, 1), targets.flatten()))

    def search_state(self) -> dict[str, Any]:
        return super().search_state() | {"recurrent_state": self.state}

    def load_search_state(self, state: dict[str, Any]) -> None:
        super().load_search_state(state)
        kept = state["recurrent_state"]
        self.state = None if kept is None else kept.to(self.data.device)
