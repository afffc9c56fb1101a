import sys
from pathlib import Path

import pytest

from common.base.errors import UserError
from common.runs import own
from common.runs.check import check_config, load_target
from common.runs.code import code_hash
from common.runs.compose import compose
from common.runs.words import quoted


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, and nothing opted in before or after."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own, "_opted", {})
    monkeypatch.setattr(sys, "path", list(sys.path))


def write(name: str, text: str = "import os\n\n\nclass Net:\n    pass\n") -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


def test_a_config_that_holds_the_word_imports_nothing() -> None:
    write("stored_nets.py", "raise SystemExit('imported')\n")
    config, _ = compose(["paper=yogi", "import=stored_nets", "model._target_=stored_nets.Net"])
    with pytest.raises(UserError, match=r"model\._target_=stored_nets\.Net: configs may only name"):
        check_config(config)
    assert "stored_nets" not in sys.modules


def test_only_what_the_module_defines_may_be_named_and_nothing_by_way_of_it() -> None:
    write("defined_nets.py")
    own.opt_in("defined_nets")
    assert load_target("defined_nets.Net", "model").__name__ == "Net"
    with pytest.raises(UserError, match=r"but of posix|but of os"):
        load_target("defined_nets.os.getcwd", "model")
    with pytest.raises(UserError, match="configs may only name"):
        load_target("os.getcwd", "model")


def test_files_are_named_by_path_and_several_by_commas() -> None:
    write("in_a_path/by_path.py")
    write("other_one.py")
    own.opt_in("./in_a_path/by_path.py, other_one")
    assert own.opted_in("by_path.Net")
    assert own.opted_in("other_one.Net")
    assert not own.opted_in("by_path_too.Net")


def test_a_file_of_the_name_of_a_module_in_use_is_refused() -> None:
    write("json.py")
    with pytest.raises(UserError, match=r"another module of this name is in use.*rename json\.py"):
        own.opt_in("json")


def test_what_a_class_reaches_in_a_module_beside_it_is_part_of_the_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes = []
    for number, text in enumerate(["X = 1\n", "X = 1  # one\nY = 2\n", "X = 2\n"]):
        folder = Path(str(number)).resolve()
        write(f"{folder}/layers_of_mine.py", text)
        write(f"{folder}/user_of_mine.py", "from layers_of_mine import X\n\n\nclass Net:\n    width = X\n")
        with monkeypatch.context() as here:
            here.chdir(folder)
            codes.append(
                code_hash("yogi", {"dataset": "digits"}, {"model": {"_target_": "user_of_mine.Net"}})
            )
    assert codes[0] == codes[1] != codes[2]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["model._target_=my.Net", "model.width=3"],
            ["model=own", "++model._target_=my.Net", "++model.width=3"],
        ),
        (
            ["method=optimizer/any", "method._target_=torch.optim.RAdam", "method.lr=1e-3"],
            ["method=optimizer/any", "++method._target_=torch.optim.RAdam", "++method.lr=1e-3"],
        ),
        (["import=a,b.py"], ["import='a,b.py'"]),
        (["model=mlp", "model.hidden=[3]"], ["model=mlp", "model.hidden=[3]"]),
        (["model._target_=common.models.mlp.MLP"], ["model._target_=common.models.mlp.MLP"]),
    ],
)
def test_naming_a_class_chooses_the_config_that_holds_nothing_else(
    words: list[str], expected: list[str]
) -> None:
    assert quoted(words) == expected
    assert quoted(quoted(words)) == expected
