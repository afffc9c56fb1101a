import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from common.base.errors import UserError
from common.runs import own
from common.runs.check import check_config, load_target
from common.runs.cli import one_line
from common.runs.code import code_hash
from common.runs.compose import compose
from common.runs.own_model import checked
from common.runs.runner import build
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


def why(target: str) -> str:
    with pytest.raises(UserError) as refused:
        load_target(target, "model")
    return str(refused.value)


def test_a_name_that_a_module_lacks_is_told_with_those_that_it_has_the_nearest_first() -> None:
    write("lacking_nets.py", "from os import getcwd\n\n\nclass Small:\n    pass\n\n\nclass Net:\n    pass\n")
    own.opt_in("lacking_nets")
    assert why("lacking_nets.net").endswith("module lacking_nets has no net (valid: Net, Small)")
    assert why("lacking_nets.Missing").endswith("module lacking_nets has no Missing (valid: Small, Net)")
    assert why("lacking_nets").endswith("is a module (valid: Small, Net)")
    assert "class Net has no Inner" in why("lacking_nets.Net.Inner")


def test_a_name_that_torch_or_this_project_lacks_is_told_in_the_same_way() -> None:
    assert "module torch.optim has no RAdm (valid: RAdam, " in why("torch.optim.RAdm")
    assert why("common.models.mlp.Mlp").endswith("module common.models.mlp has no Mlp (valid: MLP)")
    assert "module common.models has no nothing" in why("common.models.nothing.Net")


def test_a_paper_of_the_current_folder_is_told_to_be_imported() -> None:
    assert why("papers.not_opted_in.module.Mine").endswith("needs import=papers.not_opted_in")


def test_in_a_package_of_ones_own_a_module_is_found_and_one_that_fails_is_told_with_its_line() -> None:
    write("pack_of_mine/__init__.py", "")
    write("pack_of_mine/nets.py")
    write("pack_of_mine/failing.py", "X = 1\nX / 0\n")
    write("pack_of_mine/needing.py", "import a_package_that_is_not_there\n")
    own.opt_in("pack_of_mine")
    assert load_target("pack_of_mine.nets.Net", "model").__name__ == "Net"
    assert "module pack_of_mine has no net (valid: nets, " in why("pack_of_mine.net.Net")
    assert "failing.py, line 2: ZeroDivisionError" in why("pack_of_mine.failing.Net")
    assert "pip install a_package_that_is_not_there" in why("pack_of_mine.needing.Net")


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("relative_pack/sub/nets.py", "import=relative_pack.sub.nets, and relative_pack.sub.nets.CLASS"),
        ("relative_alone.py", "from NAME import ... without a dot"),
    ],
)
def test_a_file_by_its_path_that_imports_relatively_is_to_be_named_as_part_of_its_package(
    path: str, advice: str
) -> None:
    write(path, "from .base import Net\n")
    with pytest.raises(UserError, match=f"line 1: attempted relative import.*{advice}"):
        own.opt_in(path)


def test_a_relative_import_in_a_package_elsewhere_is_told_with_the_folder_to_go_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("far/pack_far/__init__.py", "")
    write("far/pack_far/nets.py", "from .base import Net\n")
    write("here/empty.py", "")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match=rf"from the folder {tmp_path}/far: import=pack_far\.nets"):
        own.opt_in("../far/pack_far/nets.py")


def test_an_argument_without_a_hint_whose_default_is_a_number_takes_no_text() -> None:
    write(
        "untyped_nets.py",
        "class Net:\n    def __init__(self, width=8, bias=True, kind='a', norm=None): ...\n",
    )
    own.opt_in("untyped_nets")

    def check(**settings: object) -> None:
        node = {"_target_": "untyped_nets.Net"} | settings
        check_config(OmegaConf.create({"model": node}))

    check(width=2.5, bias=0, kind=3, norm="batch")
    check(width=[3, 4])
    with pytest.raises(UserError, match=r"model\.width=abc: .*number"):
        check(width="abc")
    with pytest.raises(UserError, match=r"model\.bias=no: "):
        check(bias="no")


NETWORK = """from torch import nn


class Net(nn.Sequential):
    def __init__(self, shape, classes, width=8):
        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.Linear(width or 1, classes))
"""


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(
    ("width", "said"),
    [
        ("-3", r"Net: .*negative dimension.* \(model\.width=-3\)$"),
        ("0", r"Net fails on inputs of shape \(2, 1, 8, 8\): .* \(model\.width=0\)$"),
        ("2.5", r"Net: .* \(model\.width=2\.5\)$"),
        (f"{10**15}", r"Net: does not fit into the memory of this machine \(model\.width=10{15}\)$"),
    ],
)
def test_a_number_that_a_network_cannot_be_made_with_is_named_by_its_key(
    width: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "numbered_nets", raising=False)
    write("numbered_nets.py", NETWORK)
    own.opt_in("numbered_nets")
    words = ["paper=yogi", "dataset=digits", "model._target_=numbered_nets.Net", f"model.width={width}"]
    with pytest.raises(UserError, match=said) as refused:
        build(*compose(words))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["model=mlp", f"model.hidden=[{10**15}]"],
            r"MLP: does not fit .* \(model\.hidden=\[10{15}\], model\.act",
        ),
        (["model=densenet_40_12", "model.depth=1000000"], r"^model\.depth=1000000; valid.*up to 10,000"),
    ],
)
def test_a_network_of_this_project_that_would_fill_the_memory_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build(*compose(["paper=yogi", "dataset=digits", *words]))


def test_a_module_that_ends_the_program_is_told() -> None:
    write("ending_nets.py", "import sys\nsys.exit(4)\n")
    with pytest.raises(UserError, match=r"^import=ending_nets: it ends the program .*SystemExit\(4\)"):
        own.opt_in("ending_nets")


def test_a_class_without_its_module_is_told_with_it() -> None:
    write("whole_nets.py")
    own.opt_in("whole_nets")
    config = OmegaConf.create({"model": {"_target_": "Net"}})
    with pytest.raises(
        UserError, match=r"what import= names \(whole_nets\.; valid: model\._target_=whole_nets\.Net\)"
    ):
        check_config(config)


PASSES = """import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.layer = nn.Linear(64, classes)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, images):
        if self.training:
            self.steps += 1
        return self.layer(images.flatten(1) + 0 * torch.rand(()))


class Auxiliary(Net):
    def forward(self, images):
        scores = super().forward(images)
        return (scores, scores) if self.training else scores


class Complex(Net):
    def forward(self, images):
        return super().forward(images) * 1j


class Cut(Net):
    def forward(self, images):
        return super().forward(images).detach()


class Stumbling(Net):
    def forward(self, images):
        if self.training:
            raise KeyError("mask")
        return super().forward(images)


class Penal(Net):
    def penalty(self):
        return self.layer.weight


class Stopping(Net):
    def __init__(self, shape, classes):
        raise KeyError("depth")


class Uncopied(Auxiliary):
    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.names = (name for name in "abc")
"""


def made(name: str, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    monkeypatch.delitem(sys.modules, "passing_nets", raising=False)
    write("passing_nets.py", PASSES)
    own.opt_in("passing_nets")
    return build(*compose(["paper=yogi", "dataset=digits", f"model._target_=passing_nets.{name}"])).model


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Auxiliary", r"Auxiliary in training mode gives a tuple \(valid: one tensor \(b, 10\)\)$"),
        ("Complex", r"Complex gives numbers of type complex64 \(valid: float32"),
        ("Cut", r"Cut in training mode gives outputs without a gradient"),
        (
            "Stumbling",
            r"Stumbling in training mode fails on .*: KeyError: 'mask' \(.*passing_nets\.py, line 36\)$",
        ),
        ("Penal", r"Penal\.penalty\(\) gives a tensor \(10, 64\) \(valid: a scalar"),
        ("Stopping", r"passing_nets\.Stopping: KeyError: 'depth' \(.*passing_nets\.py, line 47\)$"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_before_it_is(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError) as refused:
        made(name, monkeypatch)
    assert re.search(said, one_line(refused.value))


def test_a_network_that_asks_for_classes_where_there_are_none_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "passing_nets", raising=False)
    write("passing_nets.py", PASSES)
    own.opt_in("passing_nets")
    with pytest.raises(UserError, match=r"classes is None, as the data \(kind regression\) have none$"):
        build(*compose(["paper=yogi", "dataset=diabetes", "model._target_=passing_nets.Net"]))


def test_a_network_is_looked_at_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("Net", monkeypatch)
    assert (model.steps, model.training) == (0, True)
    data = SimpleNamespace(shape=(1, 8, 8), classes=10)
    torch.manual_seed(0)
    checked(model, type(model), data, "image_classification")
    drawn = torch.rand(())
    torch.manual_seed(0)
    assert drawn == torch.rand(())


def test_a_network_that_cannot_be_copied_is_looked_at_in_evaluation_mode_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert made("Uncopied", monkeypatch)


def test_an_error_that_what_wraps_it_is_raised_from_has_a_line() -> None:
    cause, around = UserError("wrong"), ValueError("around")
    cause.__cause__, around.__cause__ = around, cause
    assert one_line(cause) == "wrong"
