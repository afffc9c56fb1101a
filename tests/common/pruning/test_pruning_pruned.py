"""The file of a pruned network: the network comes out of it in another process, and nothing else does."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pruning_toys import IMAGE, classifier, conv, plan, randomised
from torch import nn

from common.base.errors import UserError
from common.models.resnet import CifarResNet
from common.pruning.channels import channel_groups
from common.pruning.pruned import load_pruned, pack
from common.pruning.slicing import sliced

ROOT = Path(__file__).parents[3]
SETTINGS: dict[str, Any] = {"shape": IMAGE, "classes": 3, "depth": 8, "block": "basic", "shortcut": "A"}
TARGET = "common.models.resnet.CifarResNet"


@pytest.fixture
def smaller() -> nn.Module:
    network = randomised(CifarResNet(**SETTINGS)).float()
    return sliced(network, IMAGE, plan(channel_groups(network, IMAGE)))


def written(folder: Path, network: nn.Module, **changes: Any) -> Path:
    path = folder / "network.pt"
    held = pack(network, target=TARGET, settings=SETTINGS, shape=IMAGE)
    torch.save({key: value for key, value in {**held, **changes}.items() if value is not None}, path)
    return path


def test_a_pruned_network_comes_out_of_its_file(tmp_path: Path, smaller: nn.Module) -> None:
    loaded = load_pruned(written(tmp_path, smaller))
    inputs = torch.randn(2, *IMAGE)
    assert torch.equal(loaded(inputs), smaller(inputs))
    assert loaded.pruning == smaller.pruning and not loaded.training


def test_another_process_loads_it_without_the_run(tmp_path: Path, smaller: nn.Module) -> None:
    path = written(tmp_path, smaller)
    inputs = torch.randn(2, *IMAGE)
    torch.save(inputs, tmp_path / "inputs.pt")
    code = (
        "import sys, torch; from common.pruning.pruned import load_pruned\n"
        "torch.save(load_pruned(sys.argv[1])(torch.load(sys.argv[2])).detach(), sys.argv[3])\n"
        "sys.exit('pytorch_lightning' in sys.modules or 'hydra' in sys.modules)"
    )
    words = [sys.executable, "-c", code, path, tmp_path / "inputs.pt", tmp_path / "outputs.pt"]
    assert subprocess.run(words, cwd=ROOT).returncode == 0
    assert torch.allclose(torch.load(tmp_path / "outputs.pt"), smaller(inputs), atol=1e-6)


def test_the_file_is_smaller_by_what_was_pruned(tmp_path: Path, smaller: nn.Module) -> None:
    network = CifarResNet(**SETTINGS)
    torch.save(network.state_dict(), tmp_path / "whole.pt")
    saved = (tmp_path / "whole.pt").stat().st_size - written(tmp_path, smaller).stat().st_size
    gone = sum(v.numel() for v in network.parameters()) - sum(v.numel() for v in smaller.parameters())
    assert saved > 0.8 * 4 * gone


def test_a_network_of_ones_own_is_given_whole(tmp_path: Path) -> None:
    network = randomised(nn.Sequential(conv(3, 6), nn.ReLU(), classifier(6)))
    small = sliced(network, IMAGE, {"0": [1, 4]})
    path = tmp_path / "own.pt"
    torch.save(pack(small, target="my_nets.Net", settings={}, shape=IMAGE), path)
    with pytest.raises(UserError, match=r"is of my_nets.Net, .* load_pruned\(path, network=...\)"):
        load_pruned(path)
    whole = nn.Sequential(conv(3, 6), nn.ReLU(), classifier(6)).double()
    loaded = load_pruned(path, network=whole)
    assert all(torch.equal(value, small.state_dict()[name]) for name, value in loaded.state_dict().items())
    with pytest.raises(UserError, match="is not of Sequential as it is here"):
        load_pruned(path, network=nn.Sequential(conv(3, 2), classifier(2)))


@pytest.mark.parametrize(
    "target", ["os.system", "common.pruning.pruned.importlib", "torch.nn.Identity", "commonly.Net", "exec"]
)
def test_a_file_names_nothing_but_networks_of_this_project(
    tmp_path: Path, smaller: nn.Module, target: str
) -> None:
    with pytest.raises(UserError, match="no network of this project"):
        load_pruned(written(tmp_path, smaller, target=target))


def test_what_is_no_pruned_network_is_one_line(tmp_path: Path, smaller: nn.Module) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_pruned(tmp_path / "nothing.pt")
    (tmp_path / "damaged.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match="cannot be read"):
        load_pruned(tmp_path / "damaged.pt")
    torch.save(smaller.state_dict(), tmp_path / "bare.pt")
    with pytest.raises(UserError, match="holds no pruned network"):
        load_pruned(tmp_path / "bare.pt")
    with pytest.raises(UserError, match="takes other settings by now"):
        load_pruned(written(tmp_path, smaller, settings={"width": 3}))
    with pytest.raises(UserError, match=r"common.models.resnet.Gone cannot be found"):
        load_pruned(written(tmp_path, smaller, target="common.models.resnet.Gone"))
    with pytest.raises(UserError, match="is not of CifarResNet as it is here"):
        load_pruned(written(tmp_path, smaller, settings=SETTINGS | {"depth": 14}))
