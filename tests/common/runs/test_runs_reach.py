"""What ages a result: each case changes one thing of a small project."""

from pathlib import Path

import pytest

from common.runs.reach import OURS, Project
from common.tables.tables import ROOT

FILES = {
    "common/__init__.py": "",
    "common/data/__init__.py": "",
    "common/base.py": '''
"""The ground."""
from abc import ABC

LEVEL = 1


class Base(ABC):
    """A base."""

    def run(self) -> int:
        """Runs."""
        return LEVEL


class Unused:
    x = 1
''',
    "common/helpers.py": """
from functools import cache
from math import sqrt as root

FACTOR = 2.0
OTHER = 3.0


@cache
def scale(x: float, by: float = FACTOR) -> float:
    # a comment
    return root(x) * by


def unrelated() -> int:
    return 1
""",
    "common/twins.py": "def scale(x):\n    return x\n",
    "common/handed_on.py": "from common.helpers import scale\n",
    "common/data/loader.py": "def load():\n    return 1\n\n\ndef other():\n    return 2\n",
    "common/registry.py": "TABLE = {}\n\n\ndef register(f):\n    TABLE[f.__name__] = f\n    return f\n",
    "common/registered.py": (
        "from common.registry import register\n\n\n@register\ndef f():\n    return 1\n"
        "\n\ndef g():\n    return 1\n"
    ),
    "common/star.py": "def starred():\n    return 1\n",
    "common/lazy.py": "def late():\n    return 1\n",
    "papers/__init__.py": "",
    "papers/module.py": '''
"""A paper."""
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import common.registered
from common.base import Base
from common.data import loader
from common.handed_on import scale
from common.star import *

if TYPE_CHECKING:
    from common.twins import scale as other

EPS = 1e-3
UNUSED = 1
LIMITS: dict[str, int] = {"a": 1}


@dataclass
class Options:
    """Options."""

    steps: int
    kind: ClassVar[str] = "plain"


class Module(Base):
    """The module.

    Attributes: none.
    """

    rate = 0.1

    def __init__(self, *, steps: int = 3, eps: "float" = EPS) -> None:
        """Make it."""
        self.options: Options = Options(steps)
        self.limits = LIMITS

    def step(self, x: float) -> float:
        from common.lazy import late

        y: float = scale(x) * starred()  # times
        return y + loader.load() + late()


def aside() -> int:
    return 2
''',
}
MODULE = "papers/module.py"


def digest(folder: Path, files: dict[str, str], target: str = "papers.module.Module") -> str:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Project(folder).digest([target])


def changed(folder: Path, name: str, old: str, new: str) -> bool:
    """Whether replacing a text in a file changes the hash."""
    before = digest(folder, FILES)
    assert old in FILES[name]
    return digest(folder, {name: FILES[name].replace(old, new)}) != before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (MODULE, '"""The module.', '"""Another text.'),
        (MODULE, '        """Make it."""\n', ""),
        (MODULE, "# times", "# by"),
        (MODULE, "x: float", "x: int | None"),
        (MODULE, "y: float = ", "y = "),
        (MODULE, ") -> float", ") -> int"),
        (MODULE, "steps: int\n", "steps: float\n"),
        (MODULE, "LIMITS: dict[str, int] = ", "LIMITS: dict[str, float] = "),
        (MODULE, "    return 2", "    return 3"),
        (MODULE, "UNUSED = 1", "UNUSED = 2"),
        (MODULE, "from common.twins import scale as other", "from common.twins import scale"),
        ("common/helpers.py", "# a comment", "# another"),
        ("common/helpers.py", "    return 1", "    return 2"),
        ("common/helpers.py", "OTHER = 3.0", "OTHER = 4.0"),
        ("common/base.py", "    x = 1", "    x = 2"),
        ("common/base.py", '"""The ground."""\n', ""),
        ("common/data/loader.py", "    return 2", "    return 3"),
        ("common/registered.py", "def g():\n    return 1", "def g():\n    return 2"),
        ("common/twins.py", "return x", "return 2 * x"),
    ],
)
def test_what_decides_nothing_does_not_age_a_result(name: str, old: str, new: str, tmp_path: Path) -> None:
    assert not changed(tmp_path, name, old, new)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (MODULE, "rate = 0.1", "rate = 0.2"),
        (MODULE, "EPS = 1e-3", "EPS = 1e-4"),
        (MODULE, "steps: int = 3", "steps: int = 4"),
        (MODULE, "y + loader", "y - loader"),
        (MODULE, "class Module(Base)", "class Module(Options)"),
        (MODULE, "@dataclass\n", "@dataclass(frozen=True)\n"),
        (MODULE, "@dataclass\n", ""),
        (MODULE, "ClassVar[str]", "str"),
        (MODULE, '{"a": 1}', '{"a": 1.0}'),
        (MODULE, "from common.handed_on import", "from common.twins import"),
        ("common/base.py", "LEVEL = 1", "LEVEL = 2"),
        ("common/base.py", "return LEVEL", "return 2 * LEVEL"),
        ("common/base.py", "class Base(ABC)", "class Base"),
        ("common/helpers.py", "FACTOR = 2.0", "FACTOR = 2.5"),
        ("common/helpers.py", "* by", "/ by"),
        ("common/helpers.py", "@cache\n", ""),
        ("common/helpers.py", "from math import sqrt as root", "from math import exp as root"),
        ("common/data/loader.py", "    return 1", "    return 2"),
        ("common/lazy.py", "    return 1", "    return 2"),
        ("common/star.py", "    return 1", "    return 2"),
        ("common/registered.py", "def f():\n    return 1", "def f():\n    return 2"),
        ("common/registry.py", "TABLE = {}", "TABLE = {1: 1}"),
    ],
)
def test_what_decides_ages_a_result(name: str, old: str, new: str, tmp_path: Path) -> None:
    assert changed(tmp_path, name, old, new)


def test_a_definition_that_moves_to_another_module_is_the_same(tmp_path: Path) -> None:
    before = digest(tmp_path / "one", FILES)
    moved = {name: text.replace("common.helpers", "common.numerics") for name, text in FILES.items()}
    moved["common/numerics.py"] = moved.pop("common/helpers.py")
    moved["papers/module.py"] = moved["papers/module.py"].replace("common.handed_on", "common.numerics")
    assert digest(tmp_path / "two", moved) == before


def test_two_names_that_exchange_what_they_stand_for_are_seen(tmp_path: Path) -> None:
    files = {
        "common/__init__.py": "",
        "common/a.py": "def f():\n    return 1\n",
        "common/b.py": "def g():\n    return 2\n",
        "papers/__init__.py": "",
        MODULE: (
            "from common.a import f\nfrom common.b import g\n\n\ndef one():\n    return f()\n\n\n"
            "def two():\n    return g()\n\n\ndef Module():\n    return one() - two()\n"
        ),
    }
    before = digest(tmp_path, files)
    swapped = "from common.a import f as g\nfrom common.b import g as f\n"
    files[MODULE] = files[MODULE].replace("from common.a import f\nfrom common.b import g\n", swapped)
    assert digest(tmp_path, files) != before


@pytest.mark.parametrize(
    "use",
    [
        "    return getattr(loader, name)()",
        "    return vars(loader)[name]()",
        '    return globals()["aside"]()',
    ],
)
def test_a_module_that_is_looked_into_by_name_counts_whole(use: str, tmp_path: Path) -> None:
    text = FILES[MODULE] + f"\n\ndef look(name):\n{use}\n"
    name = MODULE if "globals" in use else "common/data/loader.py"
    files = FILES | {MODULE: text}
    before = digest(tmp_path, files, "papers.module.look")
    files[name] = files[name].replace("    return 2", "    return 3")
    assert digest(tmp_path, files, "papers.module.look") != before


def test_subclasses_that_are_found_by_their_base_count(tmp_path: Path) -> None:
    text = FILES[MODULE] + "\n\ndef find():\n    return Base.__subclasses__()\n"
    files = FILES | {MODULE: text}
    before = digest(tmp_path, files, "papers.module.find")
    files[MODULE] = text.replace("rate = 0.1", "rate = 0.2")
    assert digest(tmp_path, files, "papers.module.find") != before


def test_a_name_in_a_string_and_a_missing_one_count(tmp_path: Path) -> None:
    files = {
        "common/__init__.py": "",
        "common/a.py": "def f():\n    return 1\n",
        MODULE: 'def Module():\n    return load("common.a.f")\n',
    }
    before = digest(tmp_path, files)
    files["common/a.py"] = "def f():\n    return 2\n"
    assert digest(tmp_path, files) != before
    assert Project(tmp_path).reached("common.a.made_when_it_runs") == {("common.a", "*")}


def test_a_users_own_module_counts_and_libraries_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    files = {
        "my_nets.py": "from my_parts.layers import width\n\n\nclass Net:\n    size = width()\n",
        "my_parts/__init__.py": "",
        "my_parts/layers.py": "import torch\n\n\ndef width():\n    return 2\n",
    }
    before = digest(tmp_path, files, "my_nets.Net")
    assert digest(tmp_path, {"my_nets.py": files["my_nets.py"] + "\n\nx = 1\n"}, "my_nets.Net") == before
    files["my_parts/layers.py"] = files["my_parts/layers.py"].replace("2", "3")
    assert digest(tmp_path, files, "my_nets.Net") != before
    for name in ("torch.nn.ReLU", "math.sqrt", "sys.path", "there_is_no_such.Net"):
        assert not Project(tmp_path).reached(name)


def test_the_machinery_that_starts_runs_is_not_reached_by_a_paper() -> None:
    project = Project(ROOT)
    found = {module for module, _ in project.reached("papers.one.module.OneModule")}
    assert "common.training.supervised" in found
    assert not {name for name in found if name.startswith(("common.runs", "common.report", "common.claims"))}
    assert set(OURS) == {path.name for path in (ROOT / "common", ROOT / "papers")}
