"""Text tasks, embeddings, the towers, and their optimizer."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.base.errors import UserError
from papers.transfer_automl.embedding import Module, bucket, vectors
from papers.transfer_automl.local_tasks import LOCAL, docs_kind, docs_module
from papers.transfer_automl.proximal_adagrad import ProximalAdagrad
from papers.transfer_automl.space import Design, DesignSpace
from papers.transfer_automl.text_sources import PRETRAINING, SOURCES
from papers.transfer_automl.text_table import small_space
from papers.transfer_automl.text_tasks import TaskFiles, TextTasks, read_task
from papers.transfer_automl.two_tower import TextObjective, TwoTower, TwoTowerNetwork, bags

VALUES: dict[str, Any] = {
    "module": "hash_8", "fine_tune": False, "layers": 1, "size": 6, "activation": "relu",
    "normalisation": "none", "dropout": 0.0, "deep_lr": 0.1, "deep_l2": 0.0, "wide_lr": 0.1,
    "wide_l1": 0.0, "samples": 400,
}  # fmt: skip


def space(file: str | None = None, dim: int = 8, **decisions: list[Any]) -> TwoTower:
    fixed = {name: value for name, value in VALUES.items() if name not in decisions}
    return TwoTower(
        shape=(1,), classes=None, decisions=decisions or {"layers": [0, 1]},
        fixed={name: v for name, v in fixed.items() if decisions or name != "layers"},
        embeddings={"hash_8": {"dim": dim, "file": file}}, buckets=64, batch_size=20,
    )  # fmt: skip


def files(name: str = "airline", **changes: Any) -> TaskFiles:
    settings: dict[str, Any] = {
        "data_dir": "nowhere", "source": "synthetic", "limit": 300, "seed": 0, "words": 50,
    }  # fmt: skip
    return TaskFiles(name, **(settings | changes))


# --- the space


def test_the_papers_space_has_as_many_designs_as_its_lists_say() -> None:
    import yaml

    settings = yaml.safe_load(Path("conf/model/two_tower.yaml").read_text())
    settings.pop("_target_")
    assert TwoTower(shape=(1,), classes=None, **settings).size == 54_432_000


def test_numbers_of_designs_go_there_and_back() -> None:
    small = small_space()
    assert small.size == 480
    numbers = torch.arange(small.size)
    codes = small.codes(numbers)
    assert torch.equal(small.number(codes), numbers)
    assert len({tuple(code) for code in codes.tolist()}) == 480
    for code in codes[[0, 17, 479]].tolist():
        values = small.values(code)
        assert small.code_of(values) == tuple(code) and values["samples"] == 4000


@pytest.mark.parametrize("code", [[2], [-1], [0, 0], []])
def test_a_design_outside_the_space_is_refused(code: list[int]) -> None:
    small = DesignSpace({"a": [1, 2]})
    with pytest.raises(UserError, match="is not in the space"):
        small.number(torch.tensor([code], dtype=torch.int64))
    with pytest.raises(UserError, match="is not in the space"):
        small.decode(tuple(code))


def test_a_neighbour_differs_in_one_decision_and_every_neighbour_comes_up() -> None:
    small, random = DesignSpace({"a": [1, 2], "b": [1, 2, 3], "c": ["only"]}), np.random.default_rng(0)
    found = {small.mutate(Design((0, 1, 0)), random).code for _ in range(200)}
    assert found == {(1, 1, 0), (0, 0, 0), (0, 2, 0)}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"activation": ["gelu"]}, "activation=gelu; valid: relu"),
        ({"dropout": [1.0]}, "dropout=1.0; valid"),
        ({"deep_lr": [0.0]}, "deep_lr=0.0; valid"),
        ({"layers": [0, 0]}, "each once"),
        ({"fine_tune": [1]}, "true or false"),
        ({"filters": [1]}, "decision filters is unknown"),
    ],
)
def test_decisions_that_cannot_be_are_refused(changes: dict[str, list[Any]], says: str) -> None:
    with pytest.raises(UserError, match=says):
        space(**changes)


# --- texts


def test_the_papers_eight_and_thirteen_tasks_are_there() -> None:
    assert len(SOURCES) == 21 and len(PRETRAINING) == 8


def test_a_task_is_split_into_parts_that_share_no_example() -> None:
    task = read_task(files())
    sizes = [len(part.labels) for part in (task.train, task.validation, task.test)]
    assert sizes == [240, 30, 30] and task.classes == ["class0", "class1", "class2"]
    again, other = read_task(files()), read_task(files(seed=1))
    assert again.train.texts == task.train.texts and other.train.texts != task.train.texts


def test_the_standard_librarys_documentation_gives_two_tasks() -> None:
    kinds, modules = docs_kind(Path()), docs_module(Path())
    assert {label for _, label in kinds} == {"module", "class", "function", "method"}
    assert len({label for _, label in modules}) == 12 and len(modules) > 500
    # the module's own name is no word of its texts
    assert not any(label.strip("_").lower() in text.lower() for text, label in modules)


@pytest.mark.parametrize("name", [name for name in LOCAL if not name.startswith("docs")])
def test_treebank_and_wikipedia_give_tasks_with_several_labels(name: str, need: Any, data_dir: Path) -> None:
    need("ptb" if name.startswith("ptb") else "wikitext-2")
    rows = LOCAL[name](data_dir)
    assert len(rows) > 1000 and 2 <= len({label for _, label in rows}) <= 20
    assert not any("N" in text.split() for text, _ in rows) or name != "ptb_numbers"
    assert not any("<unk>" in text for text, _ in rows) or name != "ptb_unknown"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("text,topic\nhello,1\n", "has no column label"),
        ("text,label\nhello,\nyou,\n", "no row has a label"),
        ("text,label\n" + "hello,one\n" * 30, "has 1 labels"),
        ("text,label\n" + "hello,one\nyou,two\n" * 3, "needs two"),
        ("", "has no column text"),
    ],
)
def test_a_task_without_labels_is_one_line(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=says):
        read_task(files(str(path), source="real", limit=None))


def test_a_table_of_the_users_own_is_a_task(tmp_path: Path) -> None:
    path = tmp_path / "mine.tsv"
    path.write_text("text\tlabel\n" + "Good, really!\tyes\nbad\tno\n" * 20)
    task = read_task(files(str(path), source="real", limit=None))
    assert task.classes == ["no", "yes"] and ["good", ",", "really", "!"] in task.train.texts


def test_a_missing_download_says_where_its_file_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.data.shared import download

    def refuse(url: str, path: Path) -> None:
        raise download.FetchError("no connection")

    monkeypatch.setattr(download, "fetch", refuse)
    with pytest.raises(UserError, match=r"sms\+spam\+collection.zip is missing.*put .* into"):
        read_task(files("sms_spam", source="real", data_dir=str(tmp_path)))


def test_an_unknown_task_has_a_near_name() -> None:
    settings: dict[str, Any] = {"data_dir": "", "source": "real", "limit": None, "seed": 0, "words": 9}
    with pytest.raises(UserError, match="did you mean airline"):
        TextTasks(kind="design_tasks", tasks=["airlines"], **settings)


# --- embeddings


def test_hashed_words_have_the_same_vector_in_every_task() -> None:
    module = Module(8, None)
    (first, one), (second, other) = (vectors(module, words, 64) for words in (["a", "b"], ["b", "c", "d"]))
    assert one[first["b"]].tolist() == other[second["b"]].tolist()
    assert bucket("b", 64) == 0x71BEEFF9 % 64


def test_a_file_gives_its_vectors_and_leaves_out_what_it_has_not(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text("2 3\nthe 1 2 3\ncat 4 5 6.5\ndog 7 8 9\n")
    rows, table = vectors(Module(3, str(path)), ["cat", "the", "bird"], 64)
    assert set(rows) == {"cat", "the"} and table[rows["cat"]].tolist() == [4, 5, 6.5]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("the 1 2 3 4\n", "has 4 numbers in line 1, and the module has dimension 3"),
        ("the 1 2 x\n", "line 1 is no word with numbers"),
        ("dog 1 2 3\n", "knows none of the task's words"),
        (None, "No such file"),
    ],
)
def test_a_file_of_another_dimension_is_one_line(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / f"vectors{abs(hash(content))}.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=says):
        vectors(Module(3, str(path)), ["the", "cat"], 64)


def test_results_say_how_many_modules_are_substitutes(tmp_path: Path) -> None:
    assert space().substituted == 1
    assert space(file=str(tmp_path / "vectors.txt")).substituted == 0


# --- the towers


@pytest.mark.parametrize("tuned", [False, True])
def test_logits_are_those_of_dense_algebra(tuned: bool) -> None:
    objective = TextObjective(space(layers=[2]), files(), read_task, 0, 1.0)
    design = objective.space.values((0,)) | {"fine_tune": tuned}
    torch.manual_seed(0)
    seen = objective.features(design)
    network = TwoTowerNetwork(design, seen.table, seen.wide_size, seen.classes).double()
    torch.nn.init.normal_(network.wide)
    task, index = read_task(files()), torch.tensor([3, 0, 7])
    words = sorted({w for part in (task.train, task.validation, task.test) for t in part.texts for w in t})
    rows, table = vectors(Module(8, None), words, 64)
    counts = {w: sum(w in text for text in task.train.texts) for w in words}
    wide = sorted((w for w in words if counts[w] >= 2), key=lambda w: (-counts[w], w))
    expected = []
    for text in (task.train.texts[int(k)] for k in index):
        sentence = sum(table[rows[w]].astype(np.float64) for w in text) / math.sqrt(len(text))
        deep = network.deep(torch.from_numpy(sentence)[None])[0]
        there = torch.tensor([float(w in text) for w in wide]).double()
        expected.append(deep + there @ network.wide)
    sentences = seen.sentences("train", index, network.embedding)
    found = network(sentences, *seen.wide["train"].of(index))
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-6, atol=1e-6)
    assert network.embedding.requires_grad == tuned


def test_bags_of_any_order_are_those_of_the_texts() -> None:
    found = bags([["a", "b", "a"], [], ["c", "x"], ["b"]], {"a": 0, "b": 1, "c": 2}, once=False)
    rows, offsets = found.of(torch.tensor([3, 1, 0]))
    assert rows.tolist() == [1, 0, 1, 0] and offsets.tolist() == [0, 1, 1]


def test_a_training_is_the_same_wherever_it_is_made_and_learns() -> None:
    objective = TextObjective(space(samples=[3000]), files(), read_task, 0, 1.0)
    first = objective.train(Design((0,)), 1)
    torch.rand(7)
    assert objective.train(Design((0,)), 1) == first
    assert first["score"] > 0.6 and 0 <= first["test"] <= 1
    short = [TextObjective(space(samples=[200]), files(), read_task, seed, 1.0) for seed in range(4)]
    assert len({tuple(one.train(Design((0,)), 1).values()) for one in short}) > 1


def test_costs_count_the_weights_that_are_trained() -> None:
    objective = TextObjective(space(layers=[2], normalisation=["layer"]), files(), read_task, 0, 1.0)
    network, costs = objective.build(Design((0, 0))), objective.count(Design((0, 0)))
    assert costs["deep"] == sum(p.numel() for p in network.deep.parameters())
    assert costs["wide"] == network.wide.numel()


def test_a_training_that_diverges_has_no_score() -> None:
    objective = TextObjective(space(deep_lr=[1e38], activation=["relu"]), files(), read_task, 0, 1.0)
    assert math.isnan(objective.train(Design((0, 0)), 1)["score"])


# --- proximal Adagrad


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (0.05, 0.0), (0.0, 0.5), (0.05, 0.5)])
def test_each_step_solves_the_proximal_problem(l1: float, l2: float) -> None:
    weight = torch.nn.Parameter(torch.tensor([0.5, -0.02, 0.0, -1.0], dtype=torch.float64))
    optimizer = ProximalAdagrad([weight], lr=0.3, l1=l1, l2=l2)
    total = np.full(4, 0.1)
    random = np.random.default_rng(0)
    for _ in range(5):
        gradient = random.normal(size=4)
        before = weight.detach().numpy().copy()
        weight.grad = torch.from_numpy(gradient)
        optimizer.step()
        total += gradient**2
        rate = 0.3 / np.sqrt(total)
        target = before - rate * gradient
        for k, found in enumerate(weight.detach().numpy()):
            # the minimiser of (w - target)^2 / (2 rate) + l1 |w| + l2 w^2 / 2, on a fine grid around it
            grid = np.linspace(-3, 3, 600_001)
            value = (grid - target[k]) ** 2 / (2 * rate[k]) + l1 * np.abs(grid) + l2 * grid**2 / 2
            assert found == pytest.approx(grid[value.argmin()], abs=2e-5)


def test_without_penalties_it_is_torchs_adagrad() -> None:
    ours, its = (torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2))
    optimizer = ProximalAdagrad([ours], lr=0.1)
    peer = torch.optim.Adagrad([its], lr=0.1, initial_accumulator_value=0.1, eps=0.0)
    for n in range(1, 6):
        for weight in (ours, its):
            weight.grad = torch.tensor([1.0, -2.0, 0.1], dtype=torch.float64) / n
        optimizer.step()
        peer.step()
    torch.testing.assert_close(ours, its)
