"""The export command: the files hold the network of the run, and what is missing is said in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from common.base.errors import UserError
from common.runs import export as command
from common.runs.compose import compose
from common.runs.export import export
from common.runs.runner import execute

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
WORDS = ["scale=smoke", "logger=none", "trainer=cpu"]


def made(folder: Path, *words: str) -> tuple[list[str], Path]:
    """Make a run; its words and its folder."""
    asked = [*words, *WORDS, f"output_dir={folder}"]
    return asked, execute(*compose(asked)).path.parent


def plain_network(words: list[str]) -> nn.Module:
    from hydra.utils import instantiate

    config, _ = compose(words)
    data = instantiate(config.dataset)
    return instantiate(config.model, shape=data.shape, classes=data.classes)


@pytest.mark.parametrize("method", ["one", "dml", "snapshot", "none"])
def test_the_state_dict_is_that_of_the_plain_network(tmp_path: Path, method: str) -> None:
    words, folder = made(tmp_path, "paper=one", f"method=distillation/{method}")
    assert export(words, "state_dict", None) == [folder / "network.pt"]
    network = plain_network(words)
    network.load_state_dict(torch.load(folder / "network.pt", weights_only=True))
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[f"model.{name}"])
    assert not list(folder.glob("*.partial*"))


def test_onnx_logits_equal_torchs_and_branch_0s_for_any_batch(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="ONNX is an extra: pip install -e '.[export]'")
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
    words, _ = made(tmp_path, "paper=one")
    paths = export(words, "both", tmp_path / "deployed" / "net.onnx")
    assert paths == [tmp_path / "deployed" / "net.pt", tmp_path / "deployed" / "net.onnx"]
    module = command._trained(words)[1][0]
    network = plain_network(words)
    network.load_state_dict(torch.load(paths[0], weights_only=True))
    session = onnxruntime.InferenceSession(str(paths[1]))
    for batch in (1, 2, 7):
        images = torch.randn(batch, 1, 8, 8)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, network.eval()(images).numpy(), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(logits, module(images).numpy(), rtol=1e-4, atol=1e-5)


def test_another_papers_run_is_exported_by_the_same_words(tmp_path: Path) -> None:
    words, folder = made(tmp_path, "paper=yogi", "dataset=digits")
    export(words, "state_dict", None)
    plain_network(words).load_state_dict(torch.load(folder / "network.pt", weights_only=True))


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["paper=one", *WORDS, f"output_dir={tmp_path}"]
    with pytest.raises(UserError, match=r"no finished run in .*; this makes it: python run.py paper=one"):
        export(words, "state_dict", None)
    with pytest.raises(UserError, match="to=tflite; valid: state_dict, onnx, both"):
        export(words, "tflite", None)
    with pytest.raises(UserError, match="unknown paper=ome; did you mean one"):
        export(["paper=ome"], "state_dict", None)
    with pytest.raises(UserError, match="name a run by its words"):
        export(["dataset=digits"], "state_dict", None)
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the packages onnx and onnxscript: pip install"):
        export(words, "onnx", None)


def test_a_run_without_network_or_checkpoint_is_refused(tmp_path: Path) -> None:
    words, _ = made(tmp_path, "entry=yogi.noise_floor.adam_b4")
    with pytest.raises(UserError, match="only classification and segmentation are exported"):
        export(words, "state_dict", None)
    words, folder = made(tmp_path, "paper=one")
    (folder / "last.ckpt").write_bytes(b"damaged")
    with pytest.raises(UserError, match="does not fit the present code"):
        export(words, "state_dict", None)
    (folder / "last.ckpt").unlink()
    with pytest.raises(UserError, match="has no checkpoint; this makes the run anew"):
        export(words, "state_dict", None)
