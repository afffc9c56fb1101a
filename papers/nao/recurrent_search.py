"""A search for a recurrent cell: each is trained for a while as a language model."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Unpack

import torch
from torch import nn
from torch.nn import functional

from common.architectures.objective import ArchitectureObjective, seed_of
from common.architectures.searchers import ArchitectureSearcher
from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.data.text.text_data import TextData
from common.metrics.parameters import count_parameters
from common.models.weightless import weightless
from common.training.language import Penalties, VariedLoader
from common.training.made_optimizer import made_optimizer
from papers.nao.recurrent_cell import RecurrentCell, recurrent_cell_of
from papers.nao.recurrent_network import RecurrentNet
from papers.nao.search import NAOSearchModule, SearchBudget
from papers.nao.space import RecurrentSpace


class RecurrentSearch:
    """What is searched, by what, and how cells are trained.

    Args:
        searcher: what proposes.
        optimizer: of the trainings.
        steps: of a cell.
    """

    STAGES: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, searcher: ArchitectureSearcher, optimizer: Any, steps: int) -> None:
        self.space = RecurrentSpace(steps)
        self.searcher, self.optimizer = searcher, optimizer


class RecurrentRecipe(NamedTuple):
    """How a cell is trained.

    Attributes:
        optimizer: makes one of parameters.
        clip: largest norm of a gradient; infinite for any.
        penalties: see `Penalties`.
        varied_bptt: see `Language`.
        seed: of the run.
        split: whose loss is the score, negated.
        device: where.
    """

    optimizer: Callable[..., torch.optim.Optimizer]
    clip: float
    penalties: Penalties
    varied_bptt: bool
    seed: int
    split: SplitName
    device: str


class RecurrentObjective(ArchitectureObjective[RecurrentCell]):
    """Language models of recurrent cells, each trained by itself; the score is the loss, negated.

    Args:
        space: of the cells.
        template: a network whose cell is exchanged.
        data: the text.
        recipe: see `RecurrentRecipe`.
        measure_test: also measure the test split, as `test`: its loss, negated.
    """

    def __init__(
        self,
        space: RecurrentSpace,
        template: RecurrentNet,
        data: TextData,
        recipe: RecurrentRecipe,
        measure_test: bool,
    ) -> None:
        self.space, self.template, self.data, self.recipe = space, template, data, recipe
        self.measure_test = measure_test

    def build(self, architecture: RecurrentCell) -> RecurrentNet:
        return self.template.with_cell(architecture)

    def count(self, architecture: RecurrentCell) -> dict[str, float]:
        """parameters."""
        with weightless():
            return {"parameters": count_parameters(self.build(architecture))}

    def train(self, architecture: RecurrentCell, budget: int) -> dict[str, float]:
        """score; perplexity of the split to judge by; test where measured; train_loss of the last step."""
        torch.manual_seed(seed_of(self.recipe.seed, architecture.key))
        network = self.build(architecture).to(self.recipe.device)
        self.data.setup()
        self.data.move(self.recipe.device)
        train_loss = train_cell(network, self.data, self.recipe, budget)
        if not math.isfinite(train_loss):
            return {"score": math.nan, "train_loss": train_loss}
        task, split = network.own_task(self.data), self.recipe.split
        found = task.evaluate(network, self.data, split)
        measures = {"score": -found[f"{split}_loss"], "perplexity": found[f"{split}_perplexity"]}
        if self.measure_test:
            measures["test"] = -task.evaluate(network, self.data, "test")["test_loss"]
        return measures | {"train_loss": train_loss}


def train_cell(network: RecurrentNet, data: TextData, recipe: RecurrentRecipe, steps: int) -> float:
    """Train in place, as `LanguageModule` does; the loss of the last step, or one that is not finite."""
    parameters = list(network.parameters())
    optimizer = made_optimizer(recipe.optimizer, parameters, "method.optimizer")
    length = len(data.tokens("train")) // data.batch_size
    loader = VariedLoader(length, data.bptt, recipe.seed) if recipe.varied_bptt else data.loader(recipe.seed)
    rates = [group["lr"] for group in optimizer.param_groups]
    network.train()
    made, state, loss = 0, None, torch.zeros(())
    for block in loader:
        for item in block:
            inputs, targets = data.ready(item)
            assert targets is not None
            passed = network.run(inputs, state)
            state = passed.state.detach()
            optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(passed.logits.flatten(0, 1), targets.flatten())
            (loss + recipe.penalties.of(passed)).backward()
            nn.utils.clip_grad_norm_(parameters, recipe.clip)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (inputs.shape[1] / data.bptt if recipe.varied_bptt else 1)
            optimizer.step()
            made += 1
            if made == steps or (made % 50 == 0 and not bool(loss.isfinite())):
                return float(loss.detach())
        if loader.at_epoch_end:
            state = None
    raise AssertionError("loaders have no end")


def require_recurrent(data: DataSet, model: nn.Module) -> TextData:
    """The data, if a recurrent cell can be searched on them with the model.

    Raises:
        UserError: data that are no text, a model without a cell.
    """
    if not isinstance(data, TextData):
        raise UserError("method: searches for recurrent cells (valid: a text, as dataset=python_docs)")
    if not isinstance(model, RecurrentNet):
        raise UserError(f"model: {type(model).__name__} has no recurrent cell (valid: model=nao_recurrent)")
    return data


class RecurrentSearchModule(NAOSearchModule[RecurrentCell]):
    """A search for a recurrent cell.

    Args:
        data: the text.
        model: a `RecurrentNet`, whose cell is exchanged.
        method: see `RecurrentSearch`.
        seed: of proposals and trainings.
        varied_bptt, activation_penalty, temporal_penalty: see `Language`.
        settings: see `SearchBudget`; `score` must be "loss", and there are no `looks`.

    Raises:
        UserError: a model that has no cell, data that are no text, a value out of range.
    """

    def __init__(
        self,
        *,
        data: DataSet,
        model: RecurrentNet,
        method: RecurrentSearch,
        seed: int,
        varied_bptt: bool,
        activation_penalty: float,
        temporal_penalty: float,
        **settings: Unpack[SearchBudget],
    ) -> None:
        text = require_recurrent(data, model)
        if settings["score"] != "loss":
            raise UserError(f"paper.score={settings['score']}; valid with a text: loss")
        recipe = RecurrentRecipe(
            method.optimizer, math.inf, Penalties(activation_penalty, temporal_penalty), varied_bptt, seed,
            settings["score_split"], "cpu",
        )  # fmt: skip
        super().__init__(
            data=data,
            objective=RecurrentObjective(method.space, model, text, recipe, False),
            full=RecurrentObjective(method.space, model, text, recipe, True),
            searcher=method.searcher,
            named={name: recurrent_cell_of(name) for name in settings["references"]},
            seed=seed,
            **settings,
        )

    def limit_gradients(self, norm: float) -> None:
        """Scale gradients of all trainings down to the norm `norm` where they are longer.

        Raises:
            UserError: a norm that is not positive.
        """
        if not (norm > 0 and math.isfinite(norm)):
            raise UserError(f"clip={norm}: must be above 0 and finite (valid: null, or the largest norm)")
        for objective in (self.objective, self.full):
            assert isinstance(objective, RecurrentObjective)
            objective.recipe = objective.recipe._replace(clip=norm)

    def results(self) -> dict[str, Any]:
        """The shared results; found_perplexity of the test split."""
        found = super().results()
        found.pop("error", None)
        if "found_test" in found:
            found["found_test_perplexity"] = math.exp(-found["found_test"])
        return found
