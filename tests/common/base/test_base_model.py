"""The contract of models: what the code reads of a model is what the contract names."""

import ast
import inspect
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hydra.utils import get_object

from common.base.model import Model, ModelTask

ROOT = Path(__file__).resolve().parents[3]
READERS = [*ROOT.glob("common/training/*.py"), *ROOT.glob("common/models/*.py"), ROOT / "common/base/task.py"]
TRAINED = ("yogi", "moonshine", "one", "factor_transfer", "mgda")


def read_of_models() -> set[str]:
    """Names that the code asks a model for by `getattr`."""
    found = set()
    for path in READERS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
                what, name, *_ = node.args
                if ast.unparse(what) == "model" and isinstance(name, ast.Constant):
                    found.add(str(name.value))
    return found


def test_all_that_is_read_of_a_model_is_in_the_contract() -> None:
    read = read_of_models()
    assert {"features", "split", "penalty", "project", "loss"} <= read
    text = inspect.getdoc(Model) or ""
    assert [name for name in sorted(read) if f"`{name}`" not in text and f"`{name}(" not in text] == []


@pytest.mark.parametrize("paper", TRAINED)
def test_the_model_of_each_recipe_says_what_it_is_for(paper: str) -> None:
    recipes = [yaml.safe_load(path.read_text()) for path in (ROOT / "conf/recipe" / paper).glob("*.yaml")]
    chosen = [one for recipe in recipes for one in recipe.get("defaults", []) if isinstance(one, dict)]
    names = {name for one in chosen for key, name in one.items() if key.endswith("/model")}
    assert names
    for name in names:
        target = yaml.safe_load((ROOT / "conf/model" / f"{name}.yaml").read_text())["_target_"]
        assert get_object(target).task in get_args(ModelTask), name
