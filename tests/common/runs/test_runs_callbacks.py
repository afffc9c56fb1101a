import random
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.demos.boring_classes import BoringModel

from common.runs.callbacks import InPlace, not_kept, random_states, restore_random_states


def draws() -> list[float]:
    return [torch.rand(()).item(), float(np.random.rand()), random.random(), float(np.random.normal())]


def test_restored_random_states_draw_the_same_numbers_again() -> None:
    np.random.normal()
    states = random_states()
    first = draws()
    restore_random_states(states)
    assert draws() == first


def test_random_states_load_without_pickle(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.save(random_states(), tmp_path / "states.pt")
    restore_random_states(torch.load(tmp_path / "states.pt", weights_only=True))


def test_a_checkpoint_is_written_where_it_lies_and_not_staged_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a folder for temporary files that takes none
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "full"))
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=0, logger=False, enable_checkpointing=False, plugins=[InPlace()],
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.strategy.connect(BoringModel())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert "state_dict" in torch.load(tmp_path / "last.ckpt", weights_only=True)


def test_what_no_checkpoint_gives_back_is_named() -> None:
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(2)).backward()
    optimizer.step()
    assert (not_kept(layer.state_dict()), not_kept(optimizer.state_dict())) == (None, None)
    optimizer.state[layer.bias]["seen"] = deque([1])
    assert not_kept(optimizer.state_dict()) == "collections.deque"
    optimizer.state[layer.bias]["seen"] = lambda: None
    assert str(not_kept(optimizer.state_dict())).startswith("what cannot be written (")
