"""Encoder, predictor, decoder; gradient steps; the searcher and its loop; tables of trainings."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from scipy.stats import kendalltau
from test_nao_network import digits, recipe
from torch.nn import functional

from common.architectures.evaluate import Workers
from common.architectures.module import ArchitectureSearchModule
from common.architectures.objective import ArchitectureObjective
from common.architectures.record import Evaluated, Record
from common.architectures.searchers import EverySearch
from common.base.errors import UserError
from common.numerics.measured import Measured
from papers.nao import lookup
from papers.nao.cell import ConvArchitecture
from papers.nao.child_training import ChildObjective
from papers.nao.epd import EPD, EPDSettings
from papers.nao.gradient_search import (
    Fitting,
    Steps,
    epd_loss,
    fit_epd,
    gradient,
    hamming_distance,
    moved,
    new_architectures,
    pairwise_accuracy,
    scaled,
)
from papers.nao.grammar import START
from papers.nao.network import NAONet
from papers.nao.operations import NAO, NAO_WS
from papers.nao.searcher import EmbeddingGradient
from papers.nao.space import ConvSpace, RecurrentSpace

SMALL = ConvSpace(2, ("identity", "conv_3x3", "max_pool_3x3"), one_cell=True)
SETTINGS = EPDSettings(8, 16, 2, 12, 2, 0.0, 0.0, 0.0)
FITTING = Fitting(3, 20, 1e-2, 1e-4, 5.0, 0.8, True)
SEARCHER: dict[str, Any] = {
    "initial": 12, "top": 4, "eta": [1.0, 1.0, 40.0], "predicts": "score", **SETTINGS._asdict(),
    **FITTING._asdict(),
}  # fmt: skip


def epd_of(space: Any, seed: int = 0, settings: EPDSettings = SETTINGS) -> EPD:
    torch.manual_seed(seed)
    return EPD(space.grammar, settings).eval()


def drawn(space: Any, count: int, seed: int = 0) -> tuple[list[Any], torch.Tensor]:
    random = np.random.default_rng(seed)
    found = [space.sample(random) for _ in range(count)]
    return found, space.grammar.tensor(found)


# --- the three networks against a plain float64 reference


def lstm(x: np.ndarray, layer: torch.nn.LSTM, h: np.ndarray, c: np.ndarray) -> np.ndarray:
    """An LSTM over [T, d] from its gates' formula."""
    w, u = (getattr(layer, f"weight_{k}_l0").detach().numpy() for k in ("ih", "hh"))
    b = sum(getattr(layer, f"bias_{k}_l0").detach().numpy() for k in ("ih", "hh"))
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    found = []
    for row in x:
        i, f, g, o = np.split(w @ row + u @ h + b, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        found.append(h)
    return np.array(found)


def unit(x: np.ndarray) -> np.ndarray:
    norms: np.ndarray = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / norms


@pytest.mark.parametrize("layers", [0, 2])
def test_the_three_networks_are_their_formulas(layers: int) -> None:
    space = ConvSpace(2, NAO, tokens="split")
    epd = epd_of(space, settings=SETTINGS._replace(fold=3, layers=layers)).double()
    _, tokens = drawn(space, 1)
    memory = epd.encode(tokens)
    rows = epd.read.weight.detach().numpy()[tokens[0].numpy()].reshape(-1, 24)
    zeros = np.zeros(16)
    o = unit(lstm(rows, epd.encoder, zeros, zeros))
    np.testing.assert_allclose(memory[0].detach(), o, rtol=1e-9)
    e = unit(o.mean(0))
    np.testing.assert_allclose(epd.embed(memory)[0].detach(), e, rtol=1e-9)
    value = e
    linears = [part for part in epd.predictor if isinstance(part, torch.nn.Linear)]
    assert len(linears) == layers + 1
    for number, part in enumerate(linears):
        value = part.weight.detach().numpy() @ value + part.bias.detach().numpy()
        value = value if number == layers else value.clip(0)
    np.testing.assert_allclose(epd.predict(memory)[0].detach(), 1 / (1 + np.exp(-value[0])), rtol=1e-9)
    before = [START, *tokens[0, :-1].tolist()]
    h = lstm(epd.write.weight.detach().numpy()[before], epd.decoder, e, e)
    scores = (h @ epd.query.weight.detach().numpy().T) @ o.T
    a = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    tilde = np.tanh(np.concatenate([a @ o, h], 1) @ epd.attended.weight.detach().numpy().T)
    wanted = tilde @ epd.logits.weight.detach().numpy().T + epd.logits.bias.detach().numpy()
    np.testing.assert_allclose(epd.write_logits(tokens, memory)[0].detach(), wanted, rtol=1e-8, atol=1e-12)
    # the loss: lambda squared error + (1 - lambda) mean negative log-likelihood
    log = wanted - np.log(np.exp(wanted).sum(1, keepdims=True))
    words = -log[np.arange(len(before)), tokens[0].numpy()].mean()
    expected = 0.8 * (1 / (1 + np.exp(-value[0])) - 0.3) ** 2 + 0.2 * words
    found = epd_loss(epd, tokens, torch.tensor([0.3], dtype=torch.float64), 0.8)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-9)


def test_greedy_decoding_is_the_likeliest_allowed_token_of_the_teacher_forced_decoder() -> None:
    for space in (ConvSpace(3, NAO, tokens="split"), RecurrentSpace(5)):
        epd = epd_of(space, settings=SETTINGS._replace(fold=1)).double()
        _, tokens = drawn(space, 6)
        memory = epd.encode(tokens)
        found = epd.greedy(memory)
        logits = epd.write_logits(found, memory)
        for row, sentence in enumerate(found.tolist()):
            before = START
            for position, token in enumerate(sentence):
                allowed = space.grammar.allowed[position, before].nonzero().flatten()
                assert token == int(allowed[logits[row, position, allowed].argmax()])
                before = token
            space.grammar.decode(sentence)


def test_memories_and_embeddings_are_unit_vectors_and_no_step_reconstructs() -> None:
    epd = epd_of(SMALL)
    _, tokens = drawn(SMALL, 30)
    memory = epd.encode(tokens)
    ones = torch.ones(30, 4)
    torch.testing.assert_close(memory.norm(dim=-1), ones)
    torch.testing.assert_close(epd.embed(memory).norm(dim=-1), ones[:, 0])
    still = moved(memory, gradient(epd, memory), 0.0, "score")
    torch.testing.assert_close(still, memory)
    assert torch.equal(epd.greedy(still), epd.greedy(memory))


@pytest.mark.parametrize("predicts", ["score", "loss"])
def test_a_small_step_moves_the_prediction_as_first_order_says(predicts: Any) -> None:
    epd = epd_of(SMALL).double()
    _, tokens = drawn(SMALL, 20)
    memory = epd.encode(tokens).detach()
    slope = gradient(epd, memory)
    eta = 1e-4
    change = epd.predict(moved(memory, slope, eta, predicts)) - epd.predict(memory)
    sign = 1 if predicts == "score" else -1
    assert bool((sign * change.detach() >= 0).all())
    # f sees o through its unit rows alone, so the slope is tangent to them and the change is eta |g|^2
    torch.testing.assert_close(
        sign * change.detach(), eta * _tangent(slope, memory).square().sum((1, 2)), rtol=1e-2, atol=1e-16
    )


def _tangent(slope: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    return slope - (slope * memory).sum(-1, keepdim=True) * memory


def test_the_gradient_is_that_of_finite_differences() -> None:
    epd = epd_of(SMALL).double()
    _, tokens = drawn(SMALL, 2)
    memory = epd.encode(tokens).detach()
    slope = gradient(epd, memory)
    for place in [(0, 0, 0), (0, 3, 5), (1, 2, 15)]:
        step = torch.zeros_like(memory)
        step[place] = 1e-6
        change = (epd.predict(memory + step) - epd.predict(memory - step)).sum() / 2e-6
        assert float(slope[place]) == pytest.approx(float(change.detach()), rel=1e-5, abs=1e-12)


def test_new_architectures_are_those_of_growing_steps_in_the_order_of_their_seeds() -> None:
    epd = epd_of(SMALL, seed=3)
    found, tokens = drawn(SMALL, 40)
    fit_epd(epd, SMALL.grammar, tokens, torch.rand(40), FITTING._replace(epochs=20), 0)
    known = {one.key for one in found}
    got = new_architectures(epd, SMALL.grammar, tokens[:6], Steps(2, 3, 50), "score", 9, known)
    memory = epd.encode(tokens[:6])
    slope = gradient(epd, memory)
    wanted: list[tuple[str, float]] = []
    for eta in range(2, 51, 3):
        for row in epd.greedy(functional.normalize(memory.detach() + eta * slope, dim=-1)).tolist():
            key = SMALL.grammar.decode(row).key
            if key not in known | {k for k, _ in wanted} and len(wanted) < 9:
                wanted.append((key, float(eta)))
    assert len(got) == len(wanted) > 0
    assert [(one.architecture.key, one.eta) for one in got] == wanted
    fewer = new_architectures(epd, SMALL.grammar, tokens[:6], Steps(2, 3, 50), "score", 2, known)
    assert fewer == got[:2]


def test_training_learns_a_landscape_and_rebuilds_sentences() -> None:
    """A sum of one number for each activation and source: unseen cells are ranked, better ones found."""
    space = RecurrentSpace(4)
    found, tokens = drawn(space, 360)
    weight = torch.tensor(
        np.random.default_rng(7).normal(size=(space.grammar.length, space.grammar.vocabulary))
    )
    weight[::2] *= 0.3
    score = lambda rows: weight[torch.arange(rows.shape[1]), rows].sum(1)  # noqa: E731
    scores = score(tokens)
    epd = epd_of(space, settings=EPDSettings(24, 48, 1, 64, 2, 0.0, 0.0, 0.0))
    fitting = Fitting(40, 50, 3e-3, 1e-5, 5.0, 0.8, False)
    fit_epd(epd, space.grammar, tokens[:240], scaled(scores[:240], "score"), fitting, 0)
    with torch.no_grad():
        memory = epd.encode(tokens[240:])
        assert pairwise_accuracy(epd.predict(memory), scores[240:]) > 0.8
        assert hamming_distance(epd.greedy(memory), tokens[240:]) < 1.5
    best = scores[:240].argsort(descending=True)[:40]
    new = new_architectures(
        epd, space.grammar, tokens[best], Steps(1, 1, 50), "score", 60, {one.key for one in found[:240]}
    )
    gained = score(space.grammar.tensor([one.architecture for one in new]))
    assert len(new) >= 10
    assert float(gained.mean()) > float(scores[best].mean()) > float(scores.mean())


# --- targets and measures


def test_targets_lie_between_0_and_1_whatever_the_unit() -> None:
    scores = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)
    for unit_of in (1.0, 1e-8, 1e8):
        assert scaled(scores * unit_of, "score").tolist() == pytest.approx([1.0, 0.0, 0.5])
        assert scaled(-scores * unit_of, "loss").tolist() == pytest.approx([1.0, 0.0, 0.5])
    assert scaled(torch.ones(3), "score").tolist() == [0.5] * 3


def test_pairwise_accuracy_is_kendalls_tau_without_ties() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 60))
    a, b = a + b, b
    found = pairwise_accuracy(torch.tensor(a), torch.tensor(b))
    assert found == pytest.approx((kendalltau(a, b).statistic + 1) / 2)
    assert pairwise_accuracy(torch.tensor(a), torch.tensor(a)) == 1.0
    assert pairwise_accuracy(torch.tensor(a), torch.tensor(-a)) == 0.0
    with pytest.raises(UserError, match="make no pair"):
        pairwise_accuracy(torch.zeros(1), torch.zeros(1))


def test_ties_count_as_in_the_official_code() -> None:
    # (a_i >= a_j and b_i >= b_j) or (a_i < a_j and b_i < b_j)
    assert pairwise_accuracy(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 1.0])) == 1.0
    assert pairwise_accuracy(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 2.0])) == 0.0


def test_hamming_distance_counts_tokens() -> None:
    assert hamming_distance(torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[1, 2, 0], [0, 0, 6]])) == 1.5


# --- the searcher


class Landscape(ArchitectureObjective[ConvArchitecture]):
    """A sum over operations, larger for convolutions of the first input."""

    def __init__(self, space: ConvSpace) -> None:
        self.space = space

    def build(self, architecture: ConvArchitecture) -> torch.nn.Module:
        return torch.nn.Linear(1, 1)

    def count(self, architecture: ConvArchitecture) -> dict[str, float]:
        return {"parameters": 1.0}

    def train(self, architecture: ConvArchitecture, budget: int) -> dict[str, float]:
        worth = {"identity": 0.0, "conv_3x3": 1.0, "max_pool_3x3": 0.4}
        both = [b for node in architecture.canonical.normal for b in node]
        return {"score": sum(worth[b.operation] - 0.1 * b.source for b in both), "test": 1.0}


def search(
    root: Path, searcher: Any, rounds: int = -1, **changes: Any
) -> ArchitectureSearchModule[ConvArchitecture]:
    objective = Landscape(SMALL)
    settings: dict[str, Any] = {
        "seed": 1, "evaluations": 30, "batch": 6, "steps": 2, "proxy_share": 0.5, "rerank": 2,
        "workers": Workers(),
    }  # fmt: skip
    parts: dict[str, Any] = {"objective": objective, "full": objective, "searcher": searcher}
    module = ArchitectureSearchModule(references={}, **(parts | settings | changes))
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, max_steps=rounds, logger=False, enable_checkpointing=False,
        default_root_dir=root, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module)
    return module


def test_a_search_is_a_random_pool_and_rounds_of_gradient_steps(tmp_path: Path) -> None:
    searcher = EmbeddingGradient(**(SEARCHER | {"epochs": 40}))
    module = search(tmp_path, searcher)
    items = module.evaluated.items
    keys = [item.architecture.key for item in items]
    assert len(keys) == len(set(keys)) == 30
    # by hand: the pool, the round's own training, its best, its steps
    record: Record[ConvArchitecture] = Record()
    for item in items[:12]:
        assert item.architecture.key not in module.expected
        record.add(item)
    seed = int(np.random.default_rng((1, 12, 1)).integers(2**62))
    epd, tokens = searcher.fitted(SMALL.grammar, record, seed)
    order = sorted(range(12), key=lambda k: -items[k].score)[:4]
    found = new_architectures(
        epd,
        SMALL.grammar,
        tokens[order],
        searcher.steps,
        "score",
        6,
        {i.architecture.key for i in items[:12]},
    )
    assert [one.architecture.key for one in found] == keys[12 : 12 + len(found)] and found
    scores = [item.score for item in items[:12]]
    for one in found:
        wanted = min(scores) + one.predicted * (max(scores) - min(scores))
        assert module.expected[one.architecture.key] == pytest.approx(wanted)


def test_predicting_a_loss_goes_the_other_way_and_expects_alike(tmp_path: Path) -> None:
    module = search(tmp_path, EmbeddingGradient(**(SEARCHER | {"predicts": "loss", "epochs": 60})))
    rounds = [item for item in module.evaluated.items[12:] if item.architecture.key in module.expected]
    pool = [item.score for item in module.evaluated.items[:12]]
    assert np.mean([item.score for item in rounds]) > np.mean(pool)
    assert np.mean([module.expected[item.architecture.key] for item in rounds]) > np.mean(pool)


def test_a_plan_is_kept_so_that_a_killed_round_need_not_be_planned_again(tmp_path: Path) -> None:
    whole = search(tmp_path / "whole", EmbeddingGradient(**SEARCHER))
    search(tmp_path / "broken", EmbeddingGradient(**SEARCHER), rounds=3)
    (plan,) = (tmp_path / "broken").glob("under_way/plan_12.json")
    kept = json.loads(plan.read_text())
    assert [ConvArchitecture.from_json(data).key for data, _ in kept] == [
        item.architecture.key for item in whole.evaluated.items[12 : 12 + len(kept)]
    ]

    class Forgetful(EmbeddingGradient):
        def fitted(self, *_: Any) -> Any:
            raise AssertionError("planned again")

    again = search(tmp_path / "broken", Forgetful(**SEARCHER), rounds=3)
    assert again.evaluated.keys == {item.architecture.key for item in whole.evaluated.items[:18]}


def test_a_round_that_finds_too_few_is_filled_at_random(tmp_path: Path) -> None:
    module = search(tmp_path, EmbeddingGradient(**(SEARCHER | {"eta": [0.001, 1.0, 0.001], "top": 1})))
    assert len(module.evaluated) == 30 and len(module.expected) < 18


def test_every_architecture_of_a_small_space_is_tried_once(tmp_path: Path) -> None:
    module = search(tmp_path, EverySearch(), evaluations=735, batch=200)
    assert module.evaluated.keys == {one.key for one in SMALL.every()} and not module.used_up
    best = max(item.score for item in module.evaluated)
    assert module.found.score == best


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"top": 13}, "method.searcher.top=13; valid: 1 to the 12 of the first pool"),
        ({"eta": [1.0, 2.0]}, r"valid: \[first, step, last\]"),
        ({"epochs": 0}, "method.searcher.epochs=0"),
        ({"trade_off": 1.5}, "method.searcher.trade_off=1.5"),
        ({"lr": -1.0}, "method.searcher.lr=-1.0"),
    ],
)
def test_searchers_refuse_what_means_nothing(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        EmbeddingGradient(**(SEARCHER | changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fold": 3}, "fold=3; valid: a divisor of the 8 tokens"),
        ({"hidden": 0}, "hidden=0"),
        ({"encoder_dropout": 1.0}, "encoder_dropout=1.0"),
    ],
)
def test_networks_refuse_sizes_that_mean_nothing(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        epd_of(SMALL, settings=SETTINGS._replace(**changes))


def test_steps_that_do_not_grow_are_refused() -> None:
    _, tokens = drawn(SMALL, 2)
    with pytest.raises(UserError, match=r"valid: \[first, step, last\], positive"):
        new_architectures(epd_of(SMALL), SMALL.grammar, tokens, Steps(1, 0, 5), "score", 1, set())


# --- tables


def table(path: Path, keys: list[str]) -> Measured:
    n = len(keys)
    values = np.arange(n * 4, dtype=np.float32).reshape(n, 2, 2)
    values[0, 1] = np.nan
    seconds = np.ones((n, 2), np.float32)
    seconds[0, 1] = np.nan
    metrics = {"accuracy": values, "loss": -values, "test": values + 1}
    made = Measured(
        {"what": "a toy"}, keys, [0, 5], [10, 20], metrics, seconds, {"parameters": np.arange(n) + 7.0}
    )
    made.save(path)
    return made


def test_a_query_gives_the_curve_of_any_way_to_write_an_architecture(tmp_path: Path) -> None:
    found = list(SMALL.every())[:3]
    table(tmp_path / "t.npz", [one.key for one in found])
    one = found[1]
    twin = {"normal": [[*n.second, *n.first] for n in one.normal], "reduction": one.to_json()["reduction"]}
    curve = lookup.query(twin, seed=5, table=str(tmp_path / "t.npz"))
    assert curve == lookup.Curve([10, 20], [6.0, 7.0], [-6.0, -7.0], [7.0, 8.0], 8, 1.0)
    assert lookup.query(one, table=str(tmp_path / "t.npz")).accuracy == [5.0, 6.0]
    # the second seed of the first was never made
    assert lookup.query(found[0], table=str(tmp_path / "t.npz")).accuracy == [0.0, 1.0]
    with pytest.raises(UserError, match="no measurement of"):
        lookup.query(found[0], seed=5, table=str(tmp_path / "t.npz"))


def test_what_a_table_lacks_is_one_line(tmp_path: Path) -> None:
    found = list(SMALL.every())
    table(tmp_path / "t.npz", [found[0].key])
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    for call, says in [
        (lambda: lookup.query(found[1], table=str(tmp_path / "t.npz")), "the table of 1 has no architecture"),
        (lambda: lookup.query("naonet", table=str(tmp_path / "t.npz")), "has no architecture"),
        (
            lambda: lookup.query(found[0], seed=3, table=str(tmp_path / "t.npz")),
            "seed=3: the table has the seeds 0, 5",
        ),
        (lambda: lookup.query(found[0], table="nothing.npz"), "table nothing.npz: .* is missing"),
        (lambda: lookup.query(found[0], table=str(tmp_path / "bad.npz")), "table .*bad.npz: "),
        (lambda: Measured.load(tmp_path / "t.npz").curve(found[0].key, "speed"), "no speed; valid: accuracy"),
    ]:
        with pytest.raises(UserError, match=says):
            call()


def test_an_evaluation_that_failed_is_left_out_of_the_training_of_the_predictor() -> None:
    found, _ = drawn(SMALL, 8)
    record: Record[ConvArchitecture] = Record()
    for number, one in enumerate(found):
        score = math.nan if number == 2 else float(number)
        record.add(Evaluated(one, {"score": score}, {"parameters": 1.0}, 0.0))
    _, tokens = EmbeddingGradient(**SEARCHER).fitted(SMALL.grammar, record, 0)
    assert torch.equal(tokens, SMALL.grammar.tensor([one for k, one in enumerate(found) if k != 2]))
    assert len(NAO_WS) == 5


def finished_run(folder: Path, seed: int, count: int, **changes: Any) -> Path:
    """What a run of every architecture leaves: its result and its record."""
    folder.mkdir()
    record: Record[ConvArchitecture] = Record()
    for number, one in zip(range(count), SMALL.every(), strict=False):
        points = {
            f"{name}@{at}": float(number + at + seed)
            for name in ("accuracy", "loss", "test")
            for at in (9, 18)
        }
        record.add(Evaluated(one, {"score": 1.0, **points}, {"parameters": 10.0 + number}, 0.5))
    (folder / "architectures.json").write_text(json.dumps({"search": record.to_json()}))
    config: dict[str, Any] = {"dataset": {}, "model": {}, "method": {}, "paper": {"steps": 18}, "seed": seed}
    result = {"config": config | changes, "seed": seed, "commit": "abc", "code": "123"}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_finished_runs_make_one_table_with_a_seed_each(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path / "a", 0, 3), finished_run(tmp_path / "b", 7, 2)]
    made = lookup.tabulate(runs, tmp_path / "t.npz")
    again = Measured.load(tmp_path / "t.npz")
    assert again.keys == made.keys == [one.key for one, _ in zip(SMALL.every(), range(3), strict=False)]
    assert (again.seeds, again.points) == ([0, 7], [9, 18])
    assert again.complete(0) and not again.complete(7)
    assert again.about["commits"] == ["abc", "abc"] and again.about["settings"]["paper"] == {"steps": 18}
    found = list(SMALL.every())[1]
    curve = lookup.query(found, seed=7, table=str(tmp_path / "t.npz"))
    assert curve == lookup.Curve([9, 18], [17.0, 26.0], [17.0, 26.0], [17.0, 26.0], 11, 0.5)
    score = lookup.TableObjective(SMALL, network_of(found), str(tmp_path / "t.npz"), 7, "loss").train(
        found, 12
    )
    assert score == {"score": -17.0, "accuracy": 17.0, "loss": 17.0, "test": 17.0}


def network_of(architecture: ConvArchitecture) -> NAONet:
    sizes = {"cells": 1, "filters": 2, "drop_path": 0.0, "dropout": 0.0, "auxiliary": 0.0}
    options: dict[str, Any] = {"stem": "cifar", "auxiliary_at": "reduction", **sizes}
    return NAONet(shape=(1, 8, 8), classes=10, architecture=architecture, **options)


def test_a_table_holds_what_the_trainings_gave(tmp_path: Path) -> None:
    template = network_of(next(iter(SMALL.every())))
    objective = ChildObjective(SMALL, template, digits(), recipe(), False, looks=1)
    one = list(SMALL.every())[5]
    measures = objective.train(one, 4)
    names = ("accuracy", "loss", "test")
    values = {name: np.array([[[measures[f"{name}@4"]]]], np.float32) for name in names}
    seconds, facts = np.ones((1, 1), np.float32), {"parameters": np.ones(1)}
    Measured({}, [one.key], [0], [4], values, seconds, facts).save(tmp_path / "one.npz")
    by_table = lookup.TableObjective(SMALL, template, str(tmp_path / "one.npz"), 0, "loss")
    assert by_table.train(one, 4)["score"] == pytest.approx(measures["score"], rel=1e-6)
    with pytest.raises(UserError, match="a training of 3 steps; valid by table"):
        by_table.train(one, 3)
    with pytest.raises(UserError, match="the table of 1 has no architecture"):
        by_table.train(list(SMALL.every())[6], 4)
    with pytest.raises(UserError, match="scores alone, no network"):
        lookup.TableObjective(SMALL, None, str(tmp_path / "one.npz"), 0, "loss").build(one)


def test_searches_of_any_seed_read_a_table_of_few(tmp_path: Path) -> None:
    one = next(iter(SMALL.every()))
    table(tmp_path / "t.npz", [one.key])
    read = [lookup.TableObjective(SMALL, None, str(tmp_path / "t.npz"), seed, "loss") for seed in range(7)]
    # seeds that the table has are read as they are
    assert [objective.seed for objective in read] == [0, 5, 0, 5, 0, 5, 0]
    assert read[0].sources() == {"t.npz": tmp_path / "t.npz"}


@pytest.mark.parametrize("space", [SMALL, ConvSpace(3, NAO_WS), RecurrentSpace(4)])
def test_the_choices_of_a_code_are_free_of_each_other(space: Any) -> None:
    assert math.prod(space.counts) == space.size
    random = np.random.default_rng(0)
    codes = [tuple(int(random.integers(count)) for count in space.counts) for _ in range(50)]
    codes += [(0,) * len(space.counts), tuple(count - 1 for count in space.counts)]
    assert [space.encode(space.decode(code)) for code in codes] == codes


def test_a_search_by_table_is_the_search_by_training_but_for_the_objective(tmp_path: Path) -> None:
    every = list(SMALL.every())
    scores = np.array([Landscape(SMALL).train(one, 1)["score"] for one in every], np.float32)[:, None, None]
    metrics, seconds = dict.fromkeys(("accuracy", "loss", "test"), scores), np.ones((735, 1), np.float32)
    facts = {"parameters": np.ones(735)}
    Measured({}, [one.key for one in every], [1], [1], metrics, seconds, facts).save(tmp_path / "t.npz")
    by_table = lookup.TableObjective(SMALL, network_of(every[0]), str(tmp_path / "t.npz"), 1, "accuracy")
    pair = [
        search(tmp_path / name, EmbeddingGradient(**SEARCHER), objective=objective, full=objective)
        for name, objective in (("training", Landscape(SMALL)), ("table", by_table))
    ]
    first, second = ([(i.architecture, round(i.score, 4)) for i in module.evaluated] for module in pair)
    assert first == second


def test_runs_that_make_no_table_are_refused(tmp_path: Path) -> None:
    runs = [finished_run(tmp_path / "a", 0, 2), finished_run(tmp_path / "b", 1, 2, paper={"steps": 9})]
    with pytest.raises(UserError, match="differ in more than their seeds"):
        lookup.tabulate(runs, tmp_path / "t.npz")
    with pytest.raises(UserError, match="no finished run"):
        lookup.tabulate([tmp_path / "c"], tmp_path / "t.npz")
