"""NAO-WS: one network holds all weights; a pool of architectures is scored by it, and renewed."""

from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from torch.nn import functional

from common.architectures.evaluate import Job, Workers, evaluate_all
from common.architectures.record import Evaluated, Record
from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.limits import require
from common.base.loader import BlockLoader
from common.base.module import UNDER_WAY, PaperModule, Progress
from common.training.finite import NonFinite
from common.training.made_optimizer import made_optimizer
from papers.nao.cell import ConvArchitecture
from papers.nao.child_training import ChildObjective, ChildRecipe
from papers.nao.epd import EPD
from papers.nao.gradient_search import fit_epd, new_architectures, scaled
from papers.nao.network import NAONet
from papers.nao.search import SearchBudget
from papers.nao.searcher import EmbeddingGradient
from papers.nao.shared import SharedNet
from papers.nao.space import ConvSpace, Tokens


class SharedSearch:
    """What is searched, and how the shared network and the pool are treated.

    Args:
        searcher: encoder, predictor and decoder with their settings; `initial` is the size of the pool.
        optimizer: of the shared network, and of the trainings from scratch.
        nodes, operations, one_cell, tokens: of the space.
        epochs: of the shared network.
        rounds: how often the pool is scored, at equal distances; after all but the last it is renewed.
        renewed: the share of the pool that gradient steps replace, the worst first.
        fresh: the share that is drawn at random in addition.
        batch: examples of the one validation batch by which an architecture is scored.
        clip: largest norm of a gradient.

    Raises:
        UserError: a value out of range, or a pool that is replaced as a whole.
    """

    STAGES: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        searcher: EmbeddingGradient,
        optimizer: Any,
        nodes: int,
        operations: list[str],
        one_cell: bool,
        tokens: Tokens,
        epochs: int,
        rounds: int,
        renewed: float,
        fresh: float,
        batch: int,
        clip: float,
    ) -> None:
        require("at least 1", "method", epochs=epochs, rounds=rounds, batch=batch)
        require("from 0 to 1", "method", renewed=renewed, fresh=fresh)
        require("positive", "method", clip=clip)
        if renewed + fresh >= 1:
            raise UserError(f"method.renewed={renewed}, fresh={fresh}; valid: less than 1 together")
        if rounds > epochs:
            raise UserError(f"method.rounds={rounds}; valid: 1 to the {epochs} epochs")
        self.space = ConvSpace(nodes, tuple(operations), one_cell, tokens)
        self.searcher, self.optimizer, self.clip = searcher, optimizer, clip
        self.epochs, self.rounds, self.batch = epochs, rounds, batch
        self.renewed, self.fresh = renewed, fresh


class SharedSearchModule(PaperModule):
    """Luo et al., NeurIPS 2018, with shared weights.

    Each minibatch trains the shared network as one architecture of the pool, all alike probable. The pool
    is scored `rounds` times: each architecture by its accuracy on one random batch of the validation split,
    batch normalisation in training mode. The same encoder, predictor and decoder go on learning from each
    scoring. The best `rerank` of the last one are trained from scratch.

    Args:
        data: the images.
        model: a `NAONet`, whose settings the shared network has.
        method: see `SharedSearch`.
        seed: of everything that is random.
        settings: see `SearchBudget`; evaluations and batch are the pool's.

    Raises:
        UserError: a model without cells.
    """

    def __init__(
        self,
        *,
        data: DataSet,
        model: NAONet,
        method: SharedSearch,
        seed: int,
        **settings: Unpack[SearchBudget],
    ) -> None:
        super().__init__()
        if not isinstance(model, NAONet):
            raise UserError(f"model: {type(model).__name__} has no cells to search (valid: model=naonet)")
        assert data.classes is not None
        self.data, self.method, self.seed = data, method, seed
        self.split, self.rerank, self.steps_in_full = (
            settings["score_split"],
            settings["rerank"],
            settings["steps"],
        )
        self.workers = Workers(settings["processes"], settings["launcher"], settings["threads"])
        self.shared = SharedNet(
            method.space, shape=data.shape, classes=data.classes, cells=model.settings["cells"],
            filters=model.settings["filters"],
        )  # fmt: skip
        self.epd = EPD(method.space.grammar, method.searcher.settings)
        for parameter in self.epd.parameters():
            # trained by a loop of its own, not by the run's optimizer
            parameter.requires_grad_(False)
        recipe = ChildRecipe(
            method.optimizer, 1.0, method.clip, 0, seed, settings["score"], self.split, "cpu"
        )
        self.full = ChildObjective(method.space, model, data, recipe, True)
        random = np.random.default_rng((seed % 2**64, 2))
        self.pool = [method.space.sample(random) for _ in range(method.searcher.initial)]
        self.scores: list[float] = []
        self.made, self.last_loss = 0, float("nan")
        self.ranked: Record[ConvArchitecture] = Record()
        self.loader: BlockLoader

    def setup(self, stage: str) -> None:
        self.data.setup(stage)
        self.data.size(self.split)
        self.loader = self.data.loader(self.seed)

    def train_dataloader(self) -> BlockLoader:
        return self.loader

    def configure_optimizers(self) -> torch.optim.Optimizer:
        self.data.move(self.device)
        self.full.recipe = self.full.recipe._replace(device=str(self.device))
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
            loss = functional.cross_entropy(self.shared(inputs, self.pool[number]), targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.shared.parameters(), self.method.clip)
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
        size = self.data.size(self.split)
        # scoring must leave the running statistics as they are
        kept = {name: value.clone() for name, value in self.shared.named_buffers()}
        self.shared.train()
        scores = []
        for number, architecture in enumerate(self.pool):
            random = np.random.default_rng((self.seed % 2**64, 4, self.made, number))
            rows = torch.from_numpy(random.permutation(size)[: self.method.batch])
            inputs, targets = self.data.batch(self.split, rows, augment=False)
            assert targets is not None
            right = self.shared(inputs, architecture).argmax(1) == targets
            scores.append(100 * float(right.double().mean()))
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
        text = f"best {self.scores[0]:.4g} %" if self.scores else f"loss {self.last_loss:.4g}"
        steps = self.loader.steps_per_epoch
        return Progress(self.made / steps, self.total_steps / steps, "epochs", text)

    def results(self) -> dict[str, Any]:
        """The pool's scores, and what the best of it are when trained from scratch.

        pool_mean, pool_best: of the last scoring, in percent. found, its code, and found_...: of the best
        from scratch its measures and costs. error: 100 less its test accuracy. params_millions.
        """
        folder = Path(self.trainer.default_root_dir) / UNDER_WAY
        jobs = [
            Job(self.full, architecture, self.steps_in_full, folder / f"full_{number}.json")
            for number, architecture in enumerate(islice(dict.fromkeys(self.pool), self.rerank))
        ]
        for item in evaluate_all(jobs, self.workers):
            self.ranked.add(item)
        best: list[Evaluated[ConvArchitecture]] = self.ranked.best(1)
        if not best:
            raise UserError(f"none of the {len(jobs)} trainings from scratch gave a score")
        found: dict[str, Any] = {f"found_{k}": v for k, v in {**best[0].measures, **best[0].costs}.items()}
        found |= {"pool_mean": float(np.mean(self.scores)), "pool_best": self.scores[0]}
        found |= {"found": list(self.method.space.encode(best[0].architecture))}
        found |= {"error": 100 - found["found_test"], "params_millions": found["found_parameters"] / 1e6}
        return found | {"steps": self.made, "shared_parameters": _size(self.shared)}

    def search_state(self) -> dict[str, Any]:
        pool = [list(self.method.space.encode(one)) for one in self.pool]
        return {"pool": pool, "scores": self.scores, "made": self.made, "last_loss": self.last_loss}

    def load_search_state(self, state: dict[str, Any]) -> None:
        self.pool = [self.method.space.decode(tuple(code)) for code in state["pool"]]
        self.scores, self.made, self.last_loss = state["scores"], state["made"], state["last_loss"]


def _size(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
