"""Runs of int8_training through the runner: composition, resuming, batches that are left out."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.quantization.method import QuantisedTraining
from common.runs.compose import compose
from common.runs.export import Options, export
from common.runs.runner import execute
from common.runs.trained import find, trained

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
SHORT = ("paper=int8_training", "scale=smoke", "dataset.batch_size=16")


def outcome(folder: Path, *words: str) -> dict[str, Any]:
    config, request = compose([*words, f"output_dir={folder}", "logger=none", "trainer=cpu"])
    return execute(config, request).result


def state(folder: Path) -> dict[str, Tensor]:
    (path,) = folder.glob("int8_training/*/last.ckpt")
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_killed_run_with_stochastic_rounding_resumes_bit_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        *SHORT,
        "checkpoint_every=0",
        "paper.epochs=3",
        "method.act_stochastic=true",
        "method.grad_bits=4",
    ]
    outcome(tmp_path / "whole", *words)

    steps = 0

    def killed(self: QuantisedTraining, student: nn.Module, done: float) -> None:
        nonlocal steps
        steps += 1
        if steps == 7:
            raise KeyError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(QuantisedTraining, "end_step", killed)
        with pytest.raises(KeyError, match="killed"):
            outcome(tmp_path / "broken", *words)
    outcome(tmp_path / "broken", *words)
    whole, broken = state(tmp_path / "whole"), state(tmp_path / "broken")
    assert whole.keys() == broken.keys()
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    assert any("activation.low" in name for name in whole)


@pytest.mark.parametrize("method", ["quantization/bn", "quantization/range_bn", "optimizer/sgd"])
def test_its_baselines_run(tmp_path: Path, method: str) -> None:
    metrics = outcome(tmp_path, *SHORT, f"method={method}")["metrics"]
    assert 0 <= metrics["test_error"] <= 100 and metrics["parameters"] == 16_794


def test_integer_arithmetic_trains_as_the_simulated_one(tmp_path: Path) -> None:
    losses = [
        outcome(tmp_path, *SHORT, f"method.arithmetic={arithmetic}")["metrics"]["train_loss"]
        for arithmetic in ("simulated", "integer")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize(
    "words",
    [
        ("method=quantization/qbp", "inner=distillation/kd"),
        ("method=distillation/kd", "inner=quantization/qbp"),
    ],
)
def test_it_composes_with_distillation_either_way_round(tmp_path: Path, words: tuple[str, ...]) -> None:
    teacher = "teacher=paper=int8_training scale=smoke method=quantization/bn"
    metrics = outcome(tmp_path, *SHORT, *words, f"'{teacher}'".replace("'teacher=", "teacher='"))["metrics"]
    assert 0 <= metrics["test_error"] <= 100
    assert any("activation.low" in name for path in tmp_path.glob("int8_training/*") for name in _names(path))


FLOAT = "paper=int8_training scale=smoke dataset.batch_size=16 method=quantization/bn"
QUANTISED = "paper=int8_training scale=smoke dataset.batch_size=16"
PRUNED = "paper=dcp dataset=digits scale=smoke method=pruning/l2"


@pytest.mark.parametrize(
    ("start", "method", "kind"),
    [
        (QUANTISED, "quantization/qbp", "QuantisedConvolution"),
        (QUANTISED, "quantization/bn", "Conv2d"),
        (FLOAT, "quantization/qbp", "QuantisedConvolution"),
        (PRUNED, "quantization/qbp", "QuantisedConvolution"),
    ],
)
def test_a_run_starts_from_a_quantised_a_float_or_a_pruned_one(
    tmp_path: Path, start: str, method: str, kind: str
) -> None:
    words = [*SHORT, f"method={method}", f"start='{start}'", f"output_dir={tmp_path}"]
    outcome(tmp_path, *words)
    found = trained(find([*words, "logger=none", "trainer=cpu"])).network
    assert type(found.get_submodule("layers.0.0")).__name__ == kind


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["paper=sensitivity", "method=pruning/sensitivity"],
            "the sensitivity of outputs works on layers of",
        ),
        (["paper=dcp", "method=pruning/auxiliary_losses"], "pruning of channels works on layers of float"),
    ],
)
def test_a_method_that_needs_float_layers_says_so_of_a_quantised_network(
    tmp_path: Path, words: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        outcome(tmp_path, *words, "dataset=digits", "scale=smoke", f"start='{QUANTISED}'")


def _names(folder: Path) -> list[str]:
    return list(torch.load(folder / "last.ckpt", weights_only=True)["state_dict"])


def test_a_last_batch_that_the_chunks_do_not_divide_is_left_out_counted_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["paper=int8_training", "dataset.limit=37", "dataset.batch_size=16", "paper.epochs=2"]
    words.append("method.num_chunks=64")
    result = outcome(tmp_path, *words)
    assert result["metrics"]["train_examples_dropped"] == 5
    assert result["metrics"]["steps"] == 4
    assert "the last batch of each epoch, 5 examples, is left out" in capsys.readouterr().err


@pytest.mark.parametrize("limit", [6, 30])
def test_batches_that_no_chunks_divide_are_refused_in_one_line(tmp_path: Path, limit: int) -> None:
    words = ["paper=int8_training", f"dataset.limit={limit}", "dataset.batch_size=6", "paper.epochs=1"]
    with pytest.raises(UserError, match="64 chunks of Range BN do not divide a batch of 6") as error:
        outcome(tmp_path, *words, "method.num_chunks=64")
    assert "multiples of 4, or method.num_chunks=1" in str(error.value)
    metrics = outcome(tmp_path, *words, "method.num_chunks=1")["metrics"]
    assert "train_examples_dropped" not in metrics


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("method.bits=0", "method.bits=0: valid: whole numbers from 1 to 32"),
        ("method.grad_bits=64", "method.grad_bits=64"),
        ("method.leave=[stem]", "the network has no stem"),
    ],
)
def test_what_it_cannot_take_is_one_line(tmp_path: Path, word: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        outcome(tmp_path, *SHORT, word)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("normalise", [True, False])
def test_a_trained_network_is_exported_in_integers_that_name_the_same_classes(
    tmp_path: Path, normalise: bool
) -> None:
    onnx = pytest.importorskip("onnx", reason="pip install -e '.[export]'")
    pytest.importorskip("onnxruntime", reason="pip install -e '.[dev]'")
    words = ["paper=int8_training", "paper.epochs=2", "dataset.limit=400", "dataset.batch_size=40"]
    words += [f"output_dir={tmp_path}", "logger=none", "trainer=cpu", "model=resnet_digits"]
    execute(*compose(words))
    found = export(words, Options(to="int8", normalise=normalise))
    plain, int8 = found.files
    kinds = [node.op_type for node in onnx.load(int8).graph.node]
    assert "BatchNormalization" not in kinds and "QuantizeLinear" in kinds
    weights = {tensor.name: tensor.data_type for tensor in onnx.load(int8).graph.initializer}
    quantised = [name for name in weights if name.endswith("weight_quantized")]
    assert len(quantised) == 7 and all(weights[name] == onnx.TensorProto.INT8 for name in quantised)
    told = {entry.key: entry.value for entry in onnx.load(int8).metadata_props}
    assert told["activations"].startswith("uint8, ") and told["weights"].startswith("int8, symmetric")
    shares = [float(line.split(" for ")[1].split("%")[0]) for line in found.latency if "same class" in line]
    assert len(shares) == 2 and min(shares) > 85
    assert "our integer arithmetic" in "".join(found.latency)
    assert sum(line.startswith("latency in onnxruntime") for line in found.latency) == 2
    assert any(line.startswith("size: ") for line in found.latency)
    assert plain.suffix == ".onnx"


def test_a_float_network_is_not_exported_in_integers(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="pip install -e '.[dev]'")
    words = [*SHORT, "method=quantization/bn", f"output_dir={tmp_path}", "logger=none", "trainer=cpu"]
    execute(*compose(words))
    with pytest.raises(UserError, match="to=int8: the network has no ranges of activations"):
        export(words, Options(to="int8"))


def test_the_state_dict_of_a_quantised_network_is_that_of_the_plain_one(tmp_path: Path) -> None:
    words = [*SHORT, f"output_dir={tmp_path}", "logger=none", "trainer=cpu"]
    execute(*compose(words))
    (file,) = export(words, Options(to="state_dict", latency=False)).files
    kept = torch.load(file, weights_only=True)
    assert all(tensor.unique().numel() <= 256 for name, tensor in kept.items() if name.endswith("0.weight"))
    assert not any("activation" in name for name in kept)
    # and another run may start from it
    weights = shutil.copy(file, tmp_path / "weights.pt")
    metrics = outcome(tmp_path / "more", *SHORT, f"start={weights}")["metrics"]
    assert 0 <= metrics["test_error"] <= 100
