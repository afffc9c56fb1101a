"""Networks that share weights: against networks of single cells, and the loop of NAO-WS."""

from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from test_nao_language import net, text
from test_nao_network import SMALL, digits
from test_nao_search import SEARCHER

from common.base.errors import UserError
from common.training.language import Penalties
from papers.nao.cell import INPUTS
from papers.nao.layers import layer_of
from papers.nao.network import CellLayer, Maps, NAONet
from papers.nao.operations import NAO, NAO_WS
from papers.nao.recurrent_cell import ACTIVATIONS
from papers.nao.recurrent_network import RecurrentNet
from papers.nao.searcher import EmbeddingGradient
from papers.nao.shared import SharedCell, SharedNet, SharedOperation, SharedRecurrentNet
from papers.nao.space import ConvSpace, RecurrentSpace
from papers.nao.ws_search import (
    SharedConvSearch,
    SharedConvSearchModule,
    SharedRecurrentSearch,
    SharedRecurrentSearchModule,
    SharedSearchModule,
)


def copy_operation(shared: SharedOperation, source: int, single: torch.nn.Module) -> None:
    """Put the weights that an operation has for a source into a layer of its own."""
    parts = [m for m in single.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.BatchNorm2d)]
    norms, weights = iter(shared.norms), iter(shared.weights)
    for part in parts:
        if isinstance(part, torch.nn.Conv2d):
            part.weight.data.copy_(next(weights)[source])
        else:
            norm = cast(Any, next(norms))
            part.weight.data.copy_(norm.weight[source])
            part.bias.data.copy_(norm.bias[source])


@pytest.mark.parametrize("operation", sorted({*NAO_WS, *NAO}))
@pytest.mark.parametrize("stride", [1, 2])
def test_a_shared_operation_is_the_plain_one_with_its_sources_weights(operation: str, stride: int) -> None:
    torch.manual_seed(0)
    shared = SharedOperation(operation, 4, 3, reduction=True).double()
    for norm in shared.norms:
        torch.nn.init.normal_(cast(Any, norm).weight)
        torch.nn.init.normal_(cast(Any, norm).bias)
    single = layer_of(operation, 4, stride).double()
    image = torch.randn(5, 4, 6, 6, dtype=torch.float64)
    source = 1
    if operation == "identity" and stride == 2:
        single.load_state_dict(shared.reduced[source].state_dict())
    else:
        copy_operation(shared, source, single)
    torch.testing.assert_close(shared(image, source, stride), single(image))
    if len(shared.weights):
        assert not torch.equal(shared(image, 0, stride), shared(image, source, stride))


@pytest.mark.parametrize("reduction", [False, True])
def test_a_shared_cell_is_the_plain_cell_and_its_loose_ends_joined(reduction: bool) -> None:
    torch.manual_seed(0)
    space = ConvSpace(3, NAO_WS)
    chosen = space.sample(np.random.default_rng(4)).normal
    shared = SharedCell(space, Maps(4, 0), Maps(4, 0), 4, reduction).double()
    plain = CellLayer(chosen, Maps(4, 0), Maps(4, 0), 4, reduction).double()
    branches = [b for node in chosen for b in node]
    for number, branch in enumerate(branches):
        operation = cast(Any, shared.branches[number])[branch.operation]
        if reduction and branch.source < INPUTS and branch.operation == "identity":
            plain.operations[number].load_state_dict(operation.reduced[branch.source].state_dict())
        else:
            copy_operation(operation, branch.source, plain.operations[number])
    for end, layer in plain.reduced.items():
        layer.load_state_dict(shared.reduced[int(end)].state_dict())
    images = torch.randn(2, 2, 4, 8, 8, dtype=torch.float64)
    weight = torch.cat([shared.joined[end] for end in plain.ends], 1)
    joined = torch.nn.functional.conv2d(plain(*images, 1.0).relu(), weight)
    torch.testing.assert_close(shared(*images, chosen), shared.norm(joined))


def test_a_step_trains_the_weights_of_its_architecture_alone() -> None:
    torch.manual_seed(0)
    net = SharedNet(SMALL, shape=(1, 8, 8), classes=10, cells=1, filters=2)
    one = SMALL.decode((0, 1, 1, 1, 2, 0, 0, 0))
    net(torch.randn(3, 1, 8, 8), one).square().sum().backward()
    branch = cast(Any, net.layers[0]).branches[0]
    (weight,) = branch["conv_3x3"].weights
    assert float(weight.grad[0].abs().sum()) > 0 and float(weight.grad[1].abs().sum()) == 0


def test_a_shared_recurrent_network_is_the_plain_one_with_its_cells_matrices() -> None:
    torch.manual_seed(0)
    cell = RecurrentSpace(4).sample(np.random.default_rng(0))
    shared = SharedRecurrentNet(4, 11, 6)
    drops = ("dropout", "dropout_hidden", "dropout_x", "dropout_input", "dropout_embedding")
    plain = RecurrentNet(
        shape=(5,), classes=11, cell=cell, size=6, tied=True, first_state=True, test_streams=1,
        **dict.fromkeys(drops, 0.0),
    )  # fmt: skip
    with torch.no_grad():
        plain.embedding.weight.copy_(shared.embedding.weight)
        plain.first.copy_(shared.first)
        for number, step in enumerate(cell.steps):
            plain.steps[number] = shared.steps[number][step.source, ACTIVATIONS.index(step.activation)]
    tokens = torch.randint(11, (3, 5))
    torch.testing.assert_close(shared.run(tokens, None, cell).logits, plain(tokens))
    count = sum(p.numel() for p in shared.parameters())
    assert count == 12 * 12 + sum(4 * i * 6 * 12 for i in range(1, 5)) + 11 * 6 + 11


# --- the loop

M = TypeVar("M", bound=SharedSearchModule[Any])
BUDGET: dict[str, Any] = {
    "evaluations": 1, "batch": 1, "steps": 4, "proxy_share": 1.0, "rerank": 2, "references": [],
    "score": "loss",
    "score_split": "validation", "looks": 0, "held_out": 0, "in_sample": False, "processes": 1,
    "launcher": "joblib", "threads": 1,
}  # fmt: skip
METHOD: dict[str, Any] = {
    "nodes": 2, "operations": list(SMALL.operations), "one_cell": True, "tokens": "pairs", "epochs": 4,
    "rounds": 2, "renewed": 0.3, "fresh": 0.1, "batch": 20, "clip": 5.0,
    "optimizer": partial(torch.optim.SGD, lr=0.05, momentum=0.9),
}  # fmt: skip


def search(**changes: Any) -> SharedConvSearchModule:
    torch.manual_seed(0)
    one = SMALL.sample(np.random.default_rng(0))
    model = NAONet(
        shape=(1, 8, 8), classes=10, architecture=one, cells=1, filters=2, stem="cifar", drop_path=0.0,
        dropout=0.0, auxiliary=0.0, auxiliary_at="reduction",
    )  # fmt: skip
    method = SharedConvSearch(
        searcher=EmbeddingGradient(**(SEARCHER | {"initial": 10})), **(METHOD | changes)
    )
    return SharedConvSearchModule(data=digits(), model=model, method=method, seed=1, **BUDGET)


def fit(module: M, root: Path) -> M:
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False, default_root_dir=root,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module)
    return module


def test_the_pool_is_scored_and_its_worst_are_replaced(tmp_path: Path) -> None:
    module = search()
    first = list(module.pool)
    fit(module, tmp_path)
    assert module.made == module.total_steps == 4 * 5
    assert len(module.pool) == 10 and module.scores == sorted(module.scores, reverse=True)
    old = [one for one in module.pool if one in first]
    # three by gradient steps, if there were so many, and one at random
    assert 6 <= len(old) <= 9
    assert module.history["step"] == [10, 20]
    found = module.results()
    assert found["error"] == pytest.approx(100 - found["found_test"]) and len(module.ranked) == 2


def test_scoring_leaves_the_network_as_it_is(tmp_path: Path) -> None:
    module = fit(search(epochs=1, rounds=1), tmp_path)
    before = {name: value.clone() for name, value in module.shared.state_dict().items()}
    pool, scores = list(module.pool), list(module.scores)
    module.trainer.strategy.connect(module)
    module._score()
    assert all(torch.equal(value, before[name]) for name, value in module.shared.state_dict().items())
    assert sorted(one.key for one in pool) == sorted(one.key for one in module.pool)
    assert len(scores) == len(module.scores)


def test_a_pool_comes_back_from_a_checkpoint() -> None:
    module, other = search(), search()
    module.pool = module.pool[::-1]
    module.scores, module.made, module.last_loss = [1.0] * 10, 7, 0.5
    other.load_search_state(module.search_state())
    assert (other.pool, other.scores, other.made, other.last_loss) == (module.pool, [1.0] * 10, 7, 0.5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"renewed": 0.6, "fresh": 0.4}, "less than 1 together"),
        ({"rounds": 5}, "method.rounds=5; valid: 1 to the 4 epochs"),
        ({"batch": 0}, "method.batch=0"),
        ({"operations": ["dil_sep_conv_3x3"]}, "has no shared form"),
    ],
)
def test_shared_searches_refuse_what_means_nothing(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        search(**changes)


def recurrent(path: Path, **changes: Any) -> SharedRecurrentSearchModule:
    torch.manual_seed(0)
    data = text(path)
    model = net(classes=data.classes, shape=data.shape, cell="nao", size=4)
    searcher = EmbeddingGradient(**(SEARCHER | {"initial": 8, "symmetry": False}))
    rest = {key: METHOD[key] for key in ("epochs", "rounds", "renewed", "fresh", "clip", "optimizer")}
    method = SharedRecurrentSearch(searcher=searcher, steps=11, batch=4, **(rest | changes))
    return SharedRecurrentSearchModule(
        data=data,
        model=model,
        method=method,
        seed=1,
        penalties=Penalties(0.0, 0.0),
        varied_bptt=True,
        **BUDGET,
    )


def test_a_pool_of_recurrent_cells_is_searched_alike(tmp_path: Path) -> None:
    module = fit(recurrent(tmp_path / "t.txt"), tmp_path)
    assert module.made == module.total_steps and module.state is None
    assert len(module.history["pool_mean"]) == 2 and all(score < 0 for score in module.scores)
    found = module.results()
    assert len(module.ranked) == 2 and found["found_perplexity"] > 1


def test_the_shared_networks_state_goes_on_within_an_epoch_and_is_kept(tmp_path: Path) -> None:
    module = recurrent(tmp_path / "t.txt")
    module.setup("fit")
    inputs, targets = module.data.ready(0)
    assert targets is not None
    first = module.loss_of(inputs, targets, module.pool[0])
    again = module.loss_of(inputs, targets, module.pool[0])
    assert float(first.detach()) != float(again.detach())
    other = recurrent(tmp_path / "t.txt")
    other.load_search_state(module.search_state())
    assert module.state is not None and other.state is not None and torch.equal(module.state, other.state)
