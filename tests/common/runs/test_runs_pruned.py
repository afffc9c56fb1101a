"""Runs that prune the network they start from: their file, what `export.py` says, and what follows."""

from pathlib import Path
from typing import Any

import pytest
import torch

from common.pruning.pruned import load_pruned
from common.runs.compose import compose
from common.runs.export import WHOLE, Options, _compared, export
from common.runs.request import Outcome
from common.runs.runner import execute
from common.runs.trained import find, trained

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

SMALL = ["paper=yogi", "dataset=digits", "model=convnet_digits", "model.widths=[6,6,8,8]"]
SMALL += ["dataset.limit=60", "logger=none", "trainer=cpu", "scale=smoke"]
FIRST = "model=convnet_digits model.widths=[6,6,8,8] method=optimizer/adam"
PRUNING = ["method=pruning/channels", "inner=distillation/kd", f"start='{FIRST}'", f"teacher='{FIRST}'"]


def made(folder: Path, *words: str) -> tuple[list[str], Outcome]:
    asked = [*SMALL, *words, f"output_dir={folder}"]
    return asked, execute(*compose(asked))


@pytest.fixture(scope="module")
def pruned_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Outcome]:
    return made(tmp_path_factory.mktemp("outputs"), *PRUNING)


def test_a_run_prunes_the_network_it_starts_from_and_learns_from_the_whole_one(
    pruned_run: tuple[list[str], Outcome],
) -> None:
    result = pruned_run[1].result
    assert result["metrics"]["parameters"] < result["metrics"]["parameters_before"]
    assert result["metrics"]["macs"] < result["metrics"]["macs_before"]
    # one run is both
    assert result["stages"]["start"]["key"] == result["stages"]["inner.teacher"]["key"]


def test_its_file_is_the_small_network_and_a_start_for_other_runs(
    pruned_run: tuple[list[str], Outcome], tmp_path: Path
) -> None:
    words, outcome = pruned_run
    path = tmp_path / "network.pt"
    assert export(words, Options("state_dict", path=path, latency=False)).files == [path]
    network, loaded = trained(find(words)).network, load_pruned(path)
    inputs = torch.rand(4, 1, 8, 8)
    assert torch.equal(loaded(inputs), network(inputs))
    assert sum(p.numel() for p in loaded.parameters()) == outcome.result["metrics"]["parameters"]
    held = torch.load(path, weights_only=True)
    assert held["settings"]["classes"] == 10 and held["about"]["data_set"] == "digits"
    again, _ = made(tmp_path, "method=optimizer/sgd", "method.lr=1e-30", f"start={path}")
    state = trained(find(again)).network.state_dict()
    assert all(torch.allclose(value, state[name], atol=1e-6) for name, value in loaded.named_parameters())


def test_its_onnx_file_gives_what_the_network_gives(
    pruned_run: tuple[list[str], Outcome], tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="ONNX is an extra: pip install -e '.[export]'")
    onnxruntime: Any = pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
    words, _ = pruned_run
    path = tmp_path / "network.onnx"
    export(words, Options("onnx", path=path, normalise=False, latency=False))
    session = onnxruntime.InferenceSession(str(path))
    inputs = torch.rand(4, 1, 8, 8)
    outputs = torch.tensor(session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0])
    assert torch.allclose(outputs, trained(find(words)).network(inputs), atol=1e-4)


def test_both_networks_are_timed_and_what_is_not_faster_is_said_so(
    pruned_run: tuple[list[str], Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, outcome = pruned_run
    monkeypatch.setattr("common.runs.export._has_onnx", lambda: False)
    monkeypatch.setattr("common.runs.latency.REPEATS", 2)
    options = Options("state_dict", path=outcome.path.parent / "again")
    lines = [line.split(":")[0] for line in export(words, options).latency]
    # the teacher is the whole network too
    assert lines[:3] == [f"latency of the {name} in torch" for name in ("network", "teacher", WHOLE)] or (
        lines[:2] == [f"latency of the {name} in torch" for name in ("network", WHOLE)]
    )
    assert "pruned" in lines
    network = trained(find(words)).network
    times = {"network": {"torch": {1: 2.0, 64: 3.0}}, WHOLE: {"torch": {1: 2.0, 64: 6.0}}}
    compared = _compared(times, {"network": network, WHOLE: network}, (1, 8, 8))
    assert compared[1:] == [
        "the pruned network is not faster in torch for a batch of 1: 1.00 x the whole one's time",
        "the pruned network is faster in torch for a batch of 64: 0.50 x the whole one's time",
    ]
