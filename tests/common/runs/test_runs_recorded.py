"""Earlier runs as what is known before a search."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from common.base.errors import UserError
from common.runs.evidence import REQUIRED
from common.runs.recorded import recorded
from common.search.settings import settings

OWN = ["paper=yogi", "dataset=digits", "paper.epochs=3"]
CHOICE = "method=choice(optimizer/adam,optimizer/yogi)"
EPS = "method.eps=log(1e-8,1) if method=optimizer/yogi"


def result(lr: float = 0.01, **given: Any) -> dict[str, Any]:
    """A run of yogi on digits, with what is given by its place otherwise."""
    made: dict[str, Any] = dict.fromkeys(REQUIRED, "") | {
        "paper": "yogi", "scale": "paper", "seed": 0, "metrics": {"validation_loss": 0.5}, "entries": [],
        "choices": {
            "dataset": "digits", "model": "logistic", "method": "optimizer/yogi", "schedule": "constant",
        },
        "config": {
            "method": {"lr": lr, "eps": 1e-4, "_target_": "x"}, "dataset": {"seed": 0, "limit": None},
            "paper": {"epochs": 3.0}, "seed": 0,
        },
        "asked": [["dataset=digits", f"method.lr={lr}", "paper.epochs=3", "paper=yogi"]],
        "finished": "2026-01-01", "overrides": [], "reported": {}, "history": {},
    }  # fmt: skip
    for place, value in given.items():
        node = made
        *path, last = place.split("__")
        for part in path:
            node = node[part]
        node[last] = value
    return made


def written(folder: Path, *results: dict[str, Any]) -> tuple[Path, Path]:
    for number, one in enumerate(results):
        path = folder / "yogi" / f"{number:012x}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(one))
    return folder / "none", folder


def found(folders: tuple[Path, Path], *words: str, of: str = "paper=yogi", sign: float = -1.0) -> list[Any]:
    return recorded(of.split(), settings(words), "validation_loss", sign, OWN, folders)


def test_runs_that_differ_in_settings_and_seed_alone_are_one_task(tmp_path: Path) -> None:
    other_seed = result(
        0.1, seed=3, config__seed=3, config__dataset__seed=3, metrics={"validation_loss": 0.7}
    )
    longer = result(0.01, config__paper__epochs=5.0, asked=[["paper=yogi", "paper.epochs=5.0"]])
    same, other = found(written(tmp_path, result(), other_seed, longer), "method.lr=log(1e-4,1)")
    assert same.x.flatten().tolist() == pytest.approx([0.5, 0.75]) and same.y.tolist() == [-0.5, -0.7]
    assert other.x.tolist() == [[0.5]] and (same.same, other.same) == (True, False)
    assert same.name == "paper=yogi dataset=digits model=logistic method=optimizer/yogi"


def test_runs_whose_config_refers_to_a_setting_elsewhere_are_still_one_task(tmp_path: Path) -> None:
    # as method.samples=${paper.epochs} would
    both = [result(lr, config__paper__rate=lr) for lr in (0.01, 0.1)]
    (task,) = found(written(tmp_path, *both), "method.lr=log(1e-4,1)")
    assert len(task.y) == 2 and task.same


def test_a_run_lies_where_its_config_and_its_choices_say(tmp_path: Path) -> None:
    adam = result(choices__method="optimizer/adam", metrics={"validation_loss": 0.25})
    (task,) = found(written(tmp_path, result(), adam), CHOICE, EPS, "method.lr=log(1e-4,1)", sign=1.0)
    # adam has no eps of its own here: 1/2 stands for what means nothing
    assert task.x[0].tolist() == pytest.approx([0.75, 0.5, 0.5])
    assert task.x[1].tolist() == pytest.approx([0.25, 0.5, 0.5])
    (task,) = found(written(tmp_path, result(config__method__eps=1e-8)), CHOICE, EPS)
    assert task.x[0].tolist() == pytest.approx([0.75, 0.0])


def test_what_lies_outside_or_has_no_such_key_or_no_finite_metric_does_not_count(tmp_path: Path) -> None:
    bad = [
        result(2.0),
        result(metrics={"train_loss": 0.1}),
        result(metrics={"validation_loss": None}),
        result(choices__dataset="mnist"),
        result(choices__method="optimizer/sgd"),
    ]
    (task,) = found(
        written(tmp_path, result(), *bad), "method.lr=log(1e-4,1)", CHOICE, of="paper=yogi dataset=digits"
    )
    assert len(task.y) == 1


@pytest.mark.parametrize(
    ("of", "line"),
    [
        ("paper=spider", "of such runs none is recorded"),
        ("paper=yogi dataset.limit=5", "none is recorded"),
        ("paper=yogi paper.epochs=3.0", "1 are recorded, none with these keys and validation_loss"),
    ],
)
def test_where_nothing_counts_one_line_says_why(tmp_path: Path, of: str, line: str) -> None:
    folders = written(tmp_path, copy.deepcopy(result()))
    with pytest.raises(UserError) as raised:
        found(folders, "method.momentum=float(0,1)", of=of)
    assert line in str(raised.value)


def test_words_match_values_however_they_are_written(tmp_path: Path) -> None:
    folders = written(tmp_path, result())
    for of in ("paper.epochs=3", "paper.epochs=3.0", "dataset.limit=null", "method.eps=1e-4", "scale=paper"):
        assert len(found(folders, "method.lr=log(1e-4,1)", of=of)) == 1
