"""The table of trainings: whole, made again in a sample, and refused where it is none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.architectures.evaluate import Workers
from common.base.errors import UserError
from papers.transfer_automl import text_table
from papers.transfer_automl.local_tasks import LOCAL
from papers.transfer_automl.space import Design
from papers.transfer_automl.text_table import PATH, Table, TextTable, make, objectives, small_space, table
from papers.transfer_automl.two_tower import TwoTower


def test_the_table_is_small_and_has_every_design_on_every_task() -> None:
    found = table()
    assert PATH.stat().st_size < 1_000_000
    assert found.about["tasks"] == list(LOCAL) and found.about["decisions"] == small_space().decisions
    for scores in (found.validation, found.test):
        assert scores.shape == (6, 480) and np.isfinite(scores).all()
        assert (scores >= 0).all() and (scores <= 1).all()
    assert (found.seconds > 0).all() and found.about["commit"]


def test_designs_matter_on_every_task() -> None:
    spread = table().validation.max(1) - np.median(table().validation, 1)
    assert (spread > 0.01).all()


@pytest.mark.parametrize("name", list(LOCAL))
def test_a_training_that_is_made_again_gives_what_the_table_says(
    name: str, need: Any, data_dir: Path
) -> None:
    if not name.startswith("docs"):
        need("ptb" if name.startswith("ptb") else "wikitext-2")
    found, row = table(), list(LOCAL).index(name)
    versions = {"python": text_table.platform.python_version(), "torch": torch.__version__}
    if versions != found.about["versions"]:
        pytest.skip("the table was made by other versions, whose documentation strings and rounding differ")
    space, number = small_space(), 101 + 60 * row
    code = space.codes(torch.tensor(number)).tolist()
    made = objectives(space, str(data_dir))[name].train(Design(tuple(code)), 1)
    # one example more or less by rounding elsewhere
    assert made["score"] == pytest.approx(found.validation[row, number], abs=0.011)
    assert made["test"] == pytest.approx(found.test[row, number], abs=0.011)


def test_a_lookup_gives_the_designs_own_scores() -> None:
    space = small_space()
    ground = TextTable(kind="design_tasks", tasks=["wiki_section", "docs_kind"]).ground(space, 0, 1.0)
    codes = space.codes(torch.tensor([7, 300]))
    found = ground.scores(torch.tensor([0, 1]), codes, torch.zeros(2))
    assert found[0].tolist() == [table().validation[5, 7], table().test[5, 7]]
    assert found[1].tolist() == [table().validation[1, 300], table().test[1, 300]]
    assert ground.best()[1] == table().validation[1].max()
    assert ground.facts() == {"substitute_embedding": 2.0}


def test_a_model_of_other_designs_is_refused() -> None:
    space = small_space()
    space.decisions = {**space.decisions, "layers": [0, 1]}
    with pytest.raises(UserError, match="holds the trainings of model=two_tower_small"):
        TextTable(kind="design_tasks", tasks=None).ground(space, 0, 1.0)


@pytest.mark.parametrize("content", [None, b"nothing", b"PK\x03\x04broken"])
def test_a_file_that_is_no_table_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "table.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="is missing or no table of trainings"):
        Table(path)


def test_making_the_table_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tiny() -> TwoTower:
        whole = small_space()
        few = {name: values[:1] for name, values in whole.decisions.items()} | {"layers": [0, 1]}
        modules = {name: {"dim": one.dim, "file": one.file} for name, one in whole.embeddings.items()}
        return TwoTower(
            shape=(1,), classes=None, decisions=few, fixed=whole.fixed | {"samples": 100},
            embeddings=modules, buckets=64, batch_size=50,
        )  # fmt: skip

    monkeypatch.setattr(text_table, "small_space", tiny)
    monkeypatch.setattr(text_table, "LOCAL", {"docs_kind": LOCAL["docs_kind"]})
    path, scratch = tmp_path / "table.npz", tmp_path / "scratch"
    make(path, scratch, "nowhere", Workers())
    first = Table(path)
    kept = scratch / "docs_kind" / "0.json"
    # what is there is not trained again, what is not there is
    changed = json.loads(kept.read_text())
    changed["measures"]["score"] = 0.125
    kept.write_text(json.dumps(changed))
    (scratch / "docs_kind" / "1.json").unlink()
    make(path, scratch, "nowhere", Workers())
    again = Table(path)
    assert again.validation[0].tolist() == [0.125, first.validation[0, 1]]
