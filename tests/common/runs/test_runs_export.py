"""The export command: the files hold the network of the run, and what is missing is said in one line."""

import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from common.base.errors import UserError
from common.runs import export as command
from common.runs.compose import compose
from common.runs.export import Options, export
from common.runs.own import opt_in
from common.runs.result import read_result
from common.runs.runner import execute
from common.runs.trained import find, trained
from common.training.segmentation import nearest

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
WORDS = ["scale=smoke", "logger=none", "trainer=cpu"]
STATE = Options("state_dict", latency=False)
# on batches of what the data set stores
PLAIN = Options("onnx", latency=False, whole=False)


def made(folder: Path, *words: str) -> tuple[list[str], Path]:
    """Make a run; its words and its folder."""
    asked = [*words, *WORDS, f"output_dir={folder}"]
    return asked, execute(*compose(asked)).path.parent


def plain_network(words: list[str]) -> nn.Module:
    from hydra.utils import instantiate

    config, _ = compose(words)
    data = instantiate(config.dataset)
    return instantiate(config.model, shape=data.shape, classes=data.classes)


@pytest.mark.parametrize(
    "method", ["one", "dml", "snapshot schedule=cyclic_cosine schedule.cycles=5", "none"]
)
def test_the_state_dict_is_that_of_the_plain_network(tmp_path: Path, method: str) -> None:
    words, folder = made(tmp_path, "paper=one", *f"method=distillation/{method}".split())
    assert export(words, STATE).files == [folder / "network.pt"]
    network = plain_network(words)
    network.load_state_dict(torch.load(folder / "network.pt", weights_only=True))
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[f"model.{name}"])
    assert not list(folder.glob("*.partial*"))


@pytest.fixture
def onnxruntime() -> Any:
    pytest.importorskip("onnxscript", reason="ONNX is an extra: pip install -e '.[export]'")
    return pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")


def opened(onnxruntime: Any, path: Path) -> tuple[Any, dict[str, Any]]:
    """A function of raw inputs, and the metadata with lists and numbers read."""
    session = onnxruntime.InferenceSession(str(path))
    name = session.get_inputs()[0].name

    def call(inputs: np.ndarray) -> np.ndarray:
        return session.run(None, {name: inputs.astype(np.float32)})[0]

    def read(text: str) -> Any:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text

    return call, {key: read(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}


@pytest.mark.parametrize(
    "words",
    [
        ["paper=yogi", "paper.epochs=2"],
        ["paper=yogi", "model=mlp", "dataset.normalise=unit_rows", "paper.epochs=2"],
    ],
    ids=["standard", "unit_rows"],
)
def test_onnxruntime_alone_gives_the_runs_own_test_error_on_raw_pixels(
    tmp_path: Path, words: list[str], onnxruntime: Any
) -> None:
    from sklearn.datasets import load_digits

    asked, folder = made(tmp_path, *words, "dataset=digits")
    (path,) = export(asked, PLAIN).files
    call, told = opened(onnxruntime, path)
    digits = load_digits()
    pixels, labels = digits.images[1400:, None], digits.target[1400:]
    wrong = np.array(told["class_names"])[call(pixels).argmax(1)] != labels.astype(str)
    result = read_result(folder / "result.json")
    assert result is not None
    assert math.isclose(100 * wrong.mean(), result["metrics"]["test_error"], abs_tol=1e-4)
    assert told["metrics"]["test_error"] == result["metrics"]["test_error"]
    assert told["shape"] == [1, 8, 8] and told["input_range"] == [0, 16]
    assert told["words"] == " ".join(result["overrides"]) and told["data_set"] == "digits"
    found = trained(find(asked))
    data = found.module.data
    data.setup()
    inputs, _ = data.batch("test", slice(None), augment=False)
    with torch.no_grad():
        np.testing.assert_allclose(call(pixels), found.network(inputs).numpy(), rtol=1e-5, atol=1e-5)


def test_a_network_judged_at_the_average_of_its_iterates_is_exported_there(tmp_path: Path) -> None:
    asked, folder = made(tmp_path, "paper=accelegrad", "dataset=digits", "paper.epochs=2")
    result = read_result(folder / "result.json")
    assert result is not None
    found = trained(find(asked))
    found.module.data.setup()
    task, network = found.module.task, found.network
    metrics = task.evaluate(network, found.module.data, "test")
    assert metrics == {name: result["metrics"][name] for name in metrics}
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    assert any(not torch.equal(value, state[f"model.{name}"]) for name, value in network.state_dict().items())


def test_a_regression_predicts_in_the_targets_own_unit_from_raw_rows(
    tmp_path: Path, onnxruntime: Any
) -> None:
    from sklearn.datasets import load_diabetes

    from common.data.shared.subsets import stratified_subset

    asked, folder = made(tmp_path, "paper=yogi", "dataset=diabetes", "method.lr=0.1", "paper.epochs=3")
    call, told = opened(onnxruntime, export(asked, PLAIN).files[0])
    rows, targets = load_diabetes(return_X_y=True, scaled=False)
    test = stratified_subset(None, len(rows), 88, torch.Generator().manual_seed(0)).numpy()
    rmse = np.sqrt(np.mean((call(rows[test]) - targets[test]) ** 2))
    result = read_result(folder / "result.json")
    assert result is not None
    assert 40 < rmse < 160
    assert math.isclose(rmse * told["target_scale"], result["metrics"]["test_rmse"], rel_tol=1e-5)
    assert told["prediction_unit"] == "the target's own"


def test_a_reconstruction_and_a_segmentation_take_raw_pixels_too(tmp_path: Path, onnxruntime: Any) -> None:
    from sklearn.datasets import load_digits

    words = ["paper=yogi", "model=autoencoder_digits", "dataset.normalise=unit_interval", "dataset.limit=200"]
    asked, folder = made(tmp_path, *words)
    call, _ = opened(onnxruntime, export(asked, PLAIN).files[0])
    pixels = load_digits().images[1400:, None]
    image = 1 / (1 + np.exp(-call(pixels)))
    squared = np.square(image - pixels.reshape(397, 64) / 16).sum(1).mean()
    result = read_result(folder / "result.json")
    assert result is not None
    assert math.isclose(squared, result["metrics"]["test_squared_error"], rel_tol=1e-4)

    words = ["paper=moonshine", "dataset=digit_masks", "method=distillation/none", "dataset.source=synthetic"]
    words += ["dataset.side=16", "dataset.limit=32", "model=erfnet_gn_encoder"]
    asked, folder = made(tmp_path, *words)
    call, told = opened(onnxruntime, export(asked, PLAIN).files[0])
    data = trained(find(asked)).module.data
    data.setup()
    stored, masks = data.test.inputs.numpy(), data.test.targets
    given = torch.from_numpy(call(stored).argmax(1))
    # the encoder alone names the pixels of a coarser image
    right = (given == nearest(masks, tuple(given.shape[1:]))).double()
    result = read_result(folder / "result.json")
    assert result is not None
    assert told["class_names"][:2] == ["background", "0"]
    assert math.isclose(float(right.mean()), result["metrics"]["test_pixel_accuracy"], abs_tol=1e-5)


def test_a_run_with_a_teacher_tells_the_latency_of_both_networks_by_its_folder(
    tmp_path: Path, onnxruntime: Any
) -> None:
    words = ["paper=yogi", "dataset=digits", "dataset.limit=200", "method=distillation/kd"]
    _, folder = made(tmp_path, *words, "model=mlp", "teacher=model=lenet_300_100 method=distillation/none")
    lines = export([str(folder)], Options("state_dict")).latency
    assert [line.split(":")[0] for line in lines] == [
        f"latency of the {name} in {engine}"
        for name in ("network", "teacher")
        for engine in ("torch", "onnxruntime")
    ]
    assert all("ms for a batch of 1, " in line and "ms for a batch of 64" in line for line in lines)


def test_without_normalisation_onnx_logits_equal_branch_0s_for_any_batch(
    tmp_path: Path, onnxruntime: Any
) -> None:
    words, _ = made(tmp_path, "paper=one")
    paths = export(words, Options("both", tmp_path / "deployed" / "net.onnx", False, False)).files
    assert paths == [tmp_path / "deployed" / "net.pt", tmp_path / "deployed" / "net.onnx"]
    module = trained(find(words)).network
    network = plain_network(words)
    network.load_state_dict(torch.load(paths[0], weights_only=True))
    session = onnxruntime.InferenceSession(str(paths[1]))
    for batch in (1, 2, 7):
        images = torch.randn(batch, 1, 8, 8)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, network.eval()(images).numpy(), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(logits, module(images).numpy(), rtol=1e-4, atol=1e-5)


def test_onnx_has_batch_normalisation_folded_unless_that_is_left_out(
    tmp_path: Path, onnxruntime: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx

    asked, _ = made(tmp_path, "paper=yogi", "dataset=digits", "model=resnet_digits_narrow")
    (path,) = export(asked, PLAIN).files
    folded = onnx.load(path)
    call, _ = opened(onnxruntime, path)
    monkeypatch.setattr(
        sys, "argv", ["export.py", *asked, "to=onnx", "latency=false", "fold=false", "whole=false"]
    )
    assert command.main() == 0, capsys.readouterr().err
    whole = onnx.load(path)
    assert "BatchNormalization" not in {node.op_type for node in folded.graph.node}
    assert len(folded.graph.initializer) <= len(whole.graph.initializer)
    pixels = 16 * np.random.default_rng(0).random((3, 1, 8, 8))
    np.testing.assert_allclose(call(pixels), opened(onnxruntime, path)[0](pixels), rtol=1e-5, atol=1e-5)


def test_another_papers_run_is_exported_by_the_same_words(tmp_path: Path) -> None:
    words, folder = made(tmp_path, "paper=yogi", "dataset=digits")
    export(words, STATE)
    plain_network(words).load_state_dict(torch.load(folder / "network.pt", weights_only=True))
    (folder / "network.pt").unlink()
    with pytest.raises(UserError, match=r"^score=0\.5: .* detector \(its network is for classification\)"):
        export(words, replace(STATE, score=0.5))
    assert not (folder / "network.pt").exists()


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["paper=one", *WORDS, f"output_dir={tmp_path}"]
    with pytest.raises(UserError, match=r"no finished run in .*; this makes it: python run.py paper=one"):
        export(words, STATE)
    with pytest.raises(UserError, match="to=tflite; valid: state_dict, onnx, both"):
        export(words, Options("tflite"))
    with pytest.raises(UserError, match="unknown paper=ome; did you mean one"):
        export(["paper=ome"], STATE)
    with pytest.raises(UserError, match="name a run by its words"):
        export(["dataset=digits"], STATE)
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the packages onnx and onnxscript: pip install"):
        export(words, Options("onnx"))


@pytest.mark.parametrize(
    ("word", "says"),
    [
        (
            "too=onnx",
            r"unknown word too=onnx; did you mean to=onnx\? \(valid: to, path, normalise, latency, ",
        ),
        ("--to=onnx", r"unknown word --to=onnx; did you mean to=onnx\?"),
        ("normalize=false", r"did you mean normalise=false\?"),
        ("zzz=1", r"unknown word zzz=1 \(valid: to, path"),
        ("papr=one", "name a run by its words"),
    ],
)
def test_a_mistyped_word_of_the_command_is_told_the_right_one(
    word: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["export.py", word])
    assert command.main() == 1
    assert re.search(says, capsys.readouterr().err)


def test_a_run_of_a_network_of_ones_own_is_found_by_its_folder_with_its_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.runs.own._opted", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "own_by_folder.py"
    file.write_text(
        "from torch import nn\nclass Net(nn.Sequential):\n"
        "    def __init__(self, classes):\n        super().__init__(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    own = [f"import={file}", "model._target_=own_by_folder.Net"]
    opt_in(str(file))
    words, folder = made(tmp_path, "paper=yogi", *own)
    for given in ([str(folder), own[0]], [own[0], str(folder)], words):
        assert export(given, Options("state_dict", tmp_path / "v1.2", latency=False)).files == [
            tmp_path / "v1.2.pt"
        ]
    with pytest.raises(UserError, match=r"not with seed=1 \(valid: .* import="):
        export([str(folder), own[0], "seed=1"], STATE)


def test_a_run_without_network_or_checkpoint_is_refused(tmp_path: Path) -> None:
    words, _ = made(tmp_path, "entry=yogi.noise_floor.adam_b4")
    with pytest.raises(UserError, match="is for online: only networks for classification, segmentation"):
        export(words, STATE)
    words, _ = made(tmp_path, "paper=spider")
    with pytest.raises(UserError, match="SpiderModule trains no network"):
        export(words, STATE)
    with pytest.raises(UserError, match=r"elsewhere: no finished run there \(valid: a folder with"):
        export([str(tmp_path / "elsewhere")], STATE)
    words, folder = made(tmp_path, "paper=one")
    with pytest.raises(UserError, match="name a run by its folder alone, not with seed=1"):
        export([str(folder), "seed=1"], STATE)
    (folder / "last.ckpt").write_bytes(b"damaged")
    with pytest.raises(UserError, match="does not fit the present code"):
        export(words, STATE)
    (folder / "last.ckpt").unlink()
    with pytest.raises(UserError, match="has no checkpoint; this makes the run anew"):
        export(words, STATE)


@pytest.mark.parametrize("paper", ["spider", "saddle"])
def test_of_a_paper_without_networks_no_run_is_advised_that_would_leave_none(
    tmp_path: Path, paper: str
) -> None:
    with pytest.raises(UserError, match=r"trains no network .*as paper=yogi") as refused:
        find([f"paper={paper}", f"output_dir={tmp_path}"])
    assert "run.py" not in str(refused.value)
    with pytest.raises(UserError, match=r"this makes it: python run\.py paper=yogi"):
        find(["paper=yogi", f"output_dir={tmp_path}"])


def test_a_row_of_the_users_table_encoded_by_the_metadata_alone_gives_the_runs_prediction(
    tmp_path: Path, onnxruntime: Any
) -> None:
    rows = [
        [
            ["1.5", "", "-2.25", "NA", "0.5"][i % 5],
            ["red", "blue", "", "green"][i % 4],
            str(i % 7),
            ["no", "yes"][i % 3 == 0],
        ]
        for i in range(40)
    ]
    file = tmp_path / "rows.csv"
    file.write_text("size,colour,age,bought\n" + "".join(",".join(row) + "\n" for row in rows))
    words = ["paper=yogi", "dataset=table", f"dataset.path={file}", "dataset.target=bought", "method.lr=0.3"]
    asked, _ = made(tmp_path, *words)
    call, told = opened(onnxruntime, export(asked, PLAIN).files[0])
    assert [column["name"] for column in told["columns"]] == ["size", "colour", "age"]
    assert told["target"] == "bought" and "one input for each of its words" in told["encoding"]

    def fed(row: dict[str, str]) -> list[float]:
        """What `encoding` says."""
        found: list[float] = []
        for column in told["columns"]:
            cell = "" if row[column["name"]] in ("", "NA") else row[column["name"]]
            if column["words"] is None:
                found.append(float(cell) if cell else column["fill"])
            else:
                found += [float(cell == word) for word in column["words"]]
        return found

    data = trained(find(asked)).module.data
    data.setup()
    inputs, labels = data.batch("test", slice(None), augment=False)
    assert labels is not None
    held_out = data.parts["test"]
    given = np.array(
        [fed(dict(zip(held_out.names, row, strict=True))) for row in zip(*held_out.columns, strict=True)]
    )
    with torch.no_grad():
        own = trained(find(asked)).network(inputs).numpy()
    np.testing.assert_allclose(call(given), own, rtol=1e-5, atol=1e-5)
    assert np.std(own) > 0.01
    assert [told["class_names"][label] for label in labels.tolist()] == held_out.target
