"""ERFNet with cheap blocks: their cost, the sizes that table 4 prints, and the pipelines of its rows."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.base.errors import UserError
from common.base.stages import Stage
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.models.weightless import weightless
from common.tables.tables import Entry, entries
from papers.moonshine.erfnet import CheapERFNet, CheapERFNetEncoder, cheap_block
from papers.moonshine.plain_erfnet import ERFNet, ERFNetEncoder, factorised_block

Run = Callable[..., subprocess.CompletedProcess[str]]
NETWORKS: dict[str, type[ERFNet]] = {"erfnet": ERFNet, "erfnet_gn": CheapERFNet}
TABLE_4 = [entry for entry in entries("moonshine") if entry.table == "table4"]


def options(entry: Entry) -> dict[str, Any]:
    keys = {key.removeprefix("model."): v for key, v in entry.values.items() if key.startswith("model.")}
    return {"shape": (3, 512, 1024), "classes": 19, **keys, "encoder": None}


def test_every_params_cell_of_table_4_is_exact() -> None:
    assert [entry.row for entry in TABLE_4] == ["erfnet_scratch", "erfnet_gn_scratch", "erfnet_gn_at"]
    for entry in TABLE_4:
        with weightless():
            model = NETWORKS[entry.choose["model"]](**options(entry))
        assert count_parameters(model, batch_norm_statistics=True) == entry.reported["params"], entry.name


@pytest.mark.parametrize("channels", [16, 64, 128])
def test_a_cheap_block_costs_its_closed_form(channels: int) -> None:
    block = cheap_block(channels, 0.3, 2)
    convolutions = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    assert sum(layer.weight.numel() for layer in convolutions) == 2 * (9 * channels + channels**2)
    assert all(layer.bias is None for layer in convolutions)
    size = 2 * (9 * channels + channels**2) + 16 * channels
    assert count_parameters(block, batch_norm_statistics=True) == size
    assert count_macs(block, (channels, 8, 16)) == 2 * (9 * channels + channels**2) * 8 * 16
    # 3x1 and 1x3, twice, with biases, and two batch normalisations
    full = factorised_block(channels, 0.3, 2)
    assert (
        count_parameters(full, batch_norm_statistics=True) == 12 * channels**2 + 4 * channels + 8 * channels
    )


@pytest.mark.parametrize("dilation", [1, 16])
def test_both_blocks_see_equally_far(dilation: int) -> None:
    reach = 1 + dilation
    image = torch.zeros(1, 16, 41, 41, requires_grad=True)
    for block in (factorised_block(16, 0.0, dilation), cheap_block(16, 0.0, dilation)):
        block.eval()(image + 1)[0, :, 20, 20].sum().backward()
        assert image.grad is not None
        seen = image.grad[0].abs().sum(0).nonzero()
        assert (seen.min().item(), seen.max().item()) == (20 - reach, 20 + reach)
        image.grad = None


def test_the_cheap_network_starts_from_its_own_encoder_alone() -> None:
    small: dict[str, Any] = {"shape": (3, 16, 16), "classes": 3, "void_logit": True, "class_weights": None}

    def first_phase(model: nn.Module) -> Stage:
        return Stage(words="model=other", key="", metrics={}, model=model)

    encoder = CheapERFNetEncoder(**small)
    model = CheapERFNet(**small, encoder=first_phase(encoder))
    own = encoder.encoder.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in model.encoder.state_dict().items())
    with pytest.raises(UserError, match=r"^model\.encoder=model=other: its layers are not"):
        CheapERFNet(**small, encoder=first_phase(ERFNetEncoder(**small)))


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in folder.rglob("result.json")]


def test_the_row_with_attention_trains_all_four_networks(quick: Run, tmp_path: Path) -> None:
    done = quick("entry=moonshine.table4.erfnet_gn_at", "scale=smoke", "dataset.source=synthetic")
    assert done.returncode == 0, done.stderr
    found = {result["entries"][0]: result for result in results(tmp_path / "outputs")}
    table, first = "moonshine.table4", "moonshine.table4_encoder"
    made = {
        f"{table}.erfnet_gn_at",
        f"{first}.erfnet_gn_at",
        f"{table}.erfnet_scratch",
        f"{first}.erfnet_scratch",
    }
    assert set(found) == made
    metrics = found[f"{table}.erfnet_gn_at"]["metrics"]
    assert metrics["parameters_with_statistics"] == 503_956
    teacher, encoder = found[f"{table}.erfnet_scratch"], found[f"{first}.erfnet_gn_at"]
    assert teacher["metrics"]["parameters_with_statistics"] == 2_073_428
    for name in ("test_loss", "test_mean_iou", "test_pixel_accuracy"):
        assert metrics[f"teacher_{name}"] == teacher["metrics"][name]
        assert metrics[f"encoder_{name}"] == encoder["metrics"][name]
    assert metrics["test_class_iou"] == pytest.approx(100 * metrics["test_mean_iou"])


def test_both_phases_train_on_camvid(need: Callable[[str], Path], quick: Run, tmp_path: Path) -> None:
    need("camvid")
    small = ["dataset.limit=16", "dataset.size=[48,64]", "dataset.validation=0", "paper.epochs=3.0"]
    adam = ["method=optimizer/adam", "method.lr=0.005"]
    encoder = " ".join(["model=erfnet_gn_encoder", "paper.epochs=3.0", *adam])
    done = quick(
        "paper=moonshine", "dataset=camvid", "model=erfnet_gn", f"model.encoder='{encoder}'", *small, *adam
    )
    assert done.returncode == 0, done.stderr
    first, second = sorted(results(tmp_path / "outputs"), key=lambda result: len(result["stages"]))
    assert [result["choices"]["model"] for result in (first, second)] == ["erfnet_gn_encoder", "erfnet_gn"]
    assert second["stages"]["encoder"]["metrics"] == first["metrics"]
    for result in (first, second):
        losses = result["history"]["running_loss"]
        assert losses[-1] < 0.95 * losses[0]
        assert 0 < result["metrics"]["test_mean_iou"] < result["metrics"]["test_pixel_accuracy"] < 1
