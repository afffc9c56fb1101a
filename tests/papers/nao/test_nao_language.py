"""Language models of recurrent cells: the formula, dropouts, perplexity, training, cells in a search."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional

from common.base.errors import UserError
from common.data.text.own_text import OwnText
from common.models.weightless import weightless
from common.training.averaging import NonMonotoneASGD
from common.training.language import (
    LanguageModule,
    Penalties,
    mean_loss,
    varied_lengths,
)
from common.training.schedules import constant
from papers.nao.recurrent_cell import NAMED
from papers.nao.recurrent_network import RecurrentNet
from papers.nao.recurrent_search import RecurrentObjective, RecurrentRecipe, train_cell
from papers.nao.space import RecurrentSpace

SETTINGS: dict[str, Any] = {
    "shape": (7,), "classes": 11, "cell": "0 1 1 2 0 0 2 3", "size": 6, "tied": True, "first_state": False,
    "dropout": 0.0, "dropout_hidden": 0.0, "dropout_x": 0.0, "dropout_input": 0.0, "dropout_embedding": 0.0,
    "test_streams": 1,
}  # fmt: skip


def net(**changes: Any) -> RecurrentNet:
    torch.manual_seed(0)
    return RecurrentNet(**(SETTINGS | changes))


# --- the network


@pytest.mark.parametrize(
    ("size", "words", "parameters"), [(850, 10_000, 27_295_000), (700, 33_278, 36_067_878)]
)
def test_the_papers_networks_have_27_and_36_million_parameters(
    size: int, words: int, parameters: int
) -> None:
    with weightless():
        found = net(cell="nao", size=size, classes=words)
    assert sum(p.numel() for p in found.parameters()) == parameters
    assert parameters == (2 * size) * 2 * size + 11 * size * 2 * size + words * size + words


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def by_formula(model: RecurrentNet, tokens: list[int], state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits of one text, word by word, in float64."""
    acts: dict[str, Any] = {"tanh": np.tanh, "relu": lambda x: x.clip(0), "identity": np.asarray}
    acts["sigmoid"] = sigmoid
    first, weights = model.first.detach().numpy(), model.steps.detach().numpy()
    table = model.embedding.weight.detach().numpy()
    found = []
    for token in tokens:
        c, h = np.split(np.concatenate([table[token], state]) @ first, 2)
        states = [state + sigmoid(c) * (np.tanh(h) - state)]
        for number, step in enumerate(model.cell.steps):
            p = states[step.source]
            c, g = np.split(p @ weights[number], 2)
            states.append(p + sigmoid(c) * (acts[step.activation](g) - p))
        state = np.mean(states[0 if model.first_state else 1 :], axis=0)
        found.append(table @ state + model.output.bias.detach().numpy())
    return np.array(found), state


@pytest.mark.parametrize("first_state", [True, False])
def test_the_cell_is_its_formula_and_goes_on_where_it_stopped(first_state: bool) -> None:
    model = net(first_state=first_state).double()
    nn.init.normal_(model.output.bias)
    for parameter in (model.first, model.steps, model.embedding.weight):
        nn.init.normal_(parameter)
    tokens = [3, 1, 4, 1, 5, 9, 2, 6]
    wanted, last = by_formula(model, tokens, np.zeros(6))
    one = model.run(torch.tensor([tokens[:3]]), None)
    other = model.run(torch.tensor([tokens[3:]]), one.state)
    found = torch.cat([one.logits, other.logits], 1)[0]
    np.testing.assert_allclose(found.detach(), wanted, rtol=1e-9)
    np.testing.assert_allclose(other.state[0].detach(), last, rtol=1e-9)
    torch.testing.assert_close(model(torch.tensor([tokens]))[0], found)


@pytest.mark.parametrize(
    "name", ["dropout", "dropout_hidden", "dropout_x", "dropout_input", "dropout_embedding"]
)
def test_each_dropout_changes_training_alone_and_keeps_means(name: str) -> None:
    model = net(**{name: 0.5}, size=32)
    tokens = torch.randint(11, (4, 5))
    torch.manual_seed(1)
    one, other = model(tokens), model(tokens)
    assert not torch.equal(one, other)
    model.eval()
    assert torch.equal(model(tokens), net(size=32).eval()(tokens))


def test_a_windows_masks_are_one_for_all_its_steps() -> None:
    model = net(dropout=0.5, size=64)
    passed = model.run(torch.randint(11, (3, 6)), None)
    kept = passed.dropped != 0
    assert bool((kept == kept[:, :1]).all()) and 0.3 < float(kept.double().mean()) < 0.7
    torch.testing.assert_close(passed.dropped[kept], 2 * passed.outputs[kept])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cell": "0 1 2 1"}, "position 2: 2 is no source"),
        ({"classes": None}, "needs a text"),
        ({"size": 0}, "model.size=0"),
        ({"dropout_x": 1.0}, "model.dropout_x=1.0"),
        ({"test_streams": 0}, "model.test_streams=0"),
    ],
)
def test_networks_refuse_what_means_nothing(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        net(**changes)


# --- perplexity


def test_the_perplexity_of_a_fixed_network_is_that_of_one_pass_over_the_text() -> None:
    model = net().double().eval()
    tokens = torch.randint(11, (150,))
    logits, _ = by_formula(model, tokens[:-1].tolist(), np.zeros(6))
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    wanted = -logs[np.arange(149), tokens[1:].numpy()].mean()
    assert mean_loss(model, tokens, 1) == pytest.approx(wanted, rel=1e-10)


# --- training


def text(path: Path, **changes: Any) -> OwnText:
    random = np.random.default_rng(0)
    words = [f"w{k}" for k in random.integers(0, 9, 900)]
    lines = [" ".join(words[at : at + 6]) for at in range(0, 900, 6)]
    path.write_text("\n".join(lines) + "\n")
    settings: dict[str, Any] = {
        "path": str(path), "level": "word", "kept_from": 1, "encoding": "utf-8", "kind": "language_modelling",
        "data_dir": "data", "source": "real", "limit": None, "verify": True, "batch_size": 4, "bptt": 12,
    }  # fmt: skip
    return OwnText(**(settings | changes))


def module_of(data: OwnText, **changes: Any) -> LanguageModule:
    drops = {"dropout": 0.2, "dropout_hidden": 0.1, "dropout_embedding": 0.1}
    model = net(classes=data.classes, shape=data.shape, **drops)
    settings: dict[str, Any] = {
        "data": data, "model": model, "make_model": lambda: model, "seed": 3, "epochs": 3.0,
        "test_every": None,
        "method": partial(NonMonotoneASGD, lr=1.0, patience=0), "schedule": constant, "pixels": "mean",
        "measure_gradient": False, "varied_bptt": True, "activation_penalty": 0.5, "temporal_penalty": 0.5,
    }  # fmt: skip
    return LanguageModule(**(settings | changes))


def fit(module: LanguageModule, root: Path, **options: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False, default_root_dir=root,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    torch.manual_seed(5)
    trainer.fit(module)
    return trainer


def test_a_training_is_the_bare_loop_with_its_state_carried_along(tmp_path: Path) -> None:
    module = module_of(text(tmp_path / "t.txt"), epochs=2.0)
    start = {name: value.clone() for name, value in module.model.state_dict().items()}
    fit(module, tmp_path)
    data = text(tmp_path / "t.txt")
    data.setup()
    model = net(
        classes=data.classes, shape=data.shape, dropout=0.2, dropout_hidden=0.1, dropout_embedding=0.1
    )
    model.load_state_dict(start)
    torch.manual_seed(5)
    length = len(data.tokens("train")) // 4
    streams = data.tokens("train")[: 4 * length].view(4, length)
    made, losses, averages = 0, [], []
    for epoch in range(2):
        state = None
        for at, tokens in varied_lengths(length, 12, 3, epoch):
            passed = model.run(streams[:, at : at + tokens], state)
            state = passed.state.detach()
            loss = functional.cross_entropy(
                passed.logits.flatten(0, 1), streams[:, at + 1 : at + tokens + 1].flatten()
            )
            total = loss + 0.5 * (passed.dropped**2).mean() + 0.5 * passed.outputs.diff(dim=1).square().mean()
            model.zero_grad()
            total.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(tokens / 12 * parameter.grad)
            losses.append(float(loss.detach()))
            made += 1
        averages.append(mean_loss(model, data.tokens("validation"), 10))
    for name, value in module.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name])
    assert module.steps == made and module.epochs_made == 2.0
    assert module.history["epoch"] == [1.0, 2.0]
    assert module.history["validation_loss"] == pytest.approx(averages, rel=1e-5)
    first = len(varied_lengths(length, 12, 3, 0))
    assert module.history["running_loss"][0] == pytest.approx(np.mean(losses[:first]), rel=1e-5)


def test_a_fraction_of_an_epoch_is_that_many_of_its_windows(tmp_path: Path) -> None:
    module = module_of(text(tmp_path / "t.txt"), epochs=1.5)
    fit(module, tmp_path)
    length = len(module.data.tokens("train")) // 4  # type: ignore[attr-defined]
    counts = [len(varied_lengths(length, 12, 3, epoch)) for epoch in range(2)]
    assert module.steps == counts[0] + round(0.5 * counts[1])
    assert module.results()["epochs"] == pytest.approx(1 + round(0.5 * counts[1]) / counts[1])


# --- a cell in a search


def test_a_cell_is_trained_as_the_module_trains_it(tmp_path: Path) -> None:
    data = text(tmp_path / "t.txt")
    module = module_of(data, epochs=1.0)
    model = net(
        classes=data.classes, shape=data.shape, dropout=0.2, dropout_hidden=0.1, dropout_embedding=0.1
    )
    fit(module, tmp_path)
    recipe = RecurrentRecipe(
        partial(NonMonotoneASGD, lr=1.0), math.inf, Penalties(0.5, 0.5), True, 3, "validation", "cpu"
    )
    torch.manual_seed(5)
    train_cell(model, data, recipe, module.steps)
    for name, value in module.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name])


def test_the_score_of_a_cell_is_its_loss_negated(tmp_path: Path) -> None:
    data = text(tmp_path / "t.txt")
    recipe = RecurrentRecipe(
        partial(torch.optim.SGD, lr=1.0), 1.0, Penalties(0.0, 0.0), False, 0, "validation", "cpu"
    )
    space = RecurrentSpace(11)
    objective = RecurrentObjective(space, net(classes=data.classes, shape=data.shape), data, recipe, True)
    found = objective.train(NAMED["nao"], 3)
    assert found["perplexity"] == pytest.approx(math.exp(-found["score"]))
    assert objective.train(NAMED["nao"], 3) == found and objective.train(NAMED["nao_ws"], 3) != found
    assert math.isfinite(found["test"]) and math.isfinite(found["train_loss"])
