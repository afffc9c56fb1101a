"""The page docs/bring_your_own.md: its commands, as a user types them in a folder of hers."""

import csv
import json
import random
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pages import blocks, chapter, commands
from PIL import Image

Quick = Callable[..., subprocess.CompletedProcess[str]]
# one step or a few: what is tested is that the words work
SHORT = ["paper.epochs=1", "trainer=cpu"]
TEACHER = "teacher=model=wrn_16_1 method=distillation/none dataset.limit=50"
CHAPTER = chapter("Bring your own")
COMMANDS = commands("python run.py", CHAPTER)
NETWORKS = blocks("python", CHAPTER)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the chapter's commands find: my_nets.py, pictures, photos with boxes, a table."""
    (tmp_path / "my_nets.py").write_text(NETWORKS)
    random.seed(0)
    for part, count in (("train", 8), ("val", 4)):
        for name, red in (("cat", 40), ("dog", 200)):
            (tmp_path / "pictures" / part / name).mkdir(parents=True)
            for i in range(count):
                image = Image.new("RGB", (16 + i % 3, 18), (red + random.randint(-20, 20), 90, 50))
                image.save(tmp_path / "pictures" / part / name / f"{i}.png")
    _photos(tmp_path / "photos")
    with (tmp_path / "sales.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["size", "colour", "bought", "price"])
        for i in range(60):
            size = random.gauss(0, 1)
            colour = random.choice(["red", "green"])
            rows.writerow([f"{size:.3f}" if i % 9 else "", colour, "yes" if size > 0 else "no", 3 * size + 1])
    return tmp_path


def _photos(folder: Path) -> None:
    """Squares on photographs, with COCO's file beside those of each part."""
    for part, count in (("train", 4), ("val", 2)):
        (folder / part).mkdir(parents=True)
        images, boxes = [], []
        for number in range(count):
            photo = Image.new("RGB", (48, 40), (90, 90, 50))
            photo.paste((200, 40, 40), (10, 8, 30, 28))
            photo.save(folder / part / f"{number}.jpg")
            images.append({"id": number, "file_name": f"{number}.jpg", "width": 48, "height": 40})
            boxes.append({"id": number, "image_id": number, "category_id": 1, "bbox": [10, 8, 20, 20]})
        content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "square"}]}
        (folder / part / "boxes.json").write_text(json.dumps(content))


def result(ended: subprocess.CompletedProcess[str], folder: Path) -> dict[str, Any]:
    assert ended.returncode == 0, ended.stderr
    path = ended.stdout.strip().splitlines()[-1].removeprefix("result: ")
    return dict(json.loads((folder / path).read_text()))


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_of_the_chapter_works(command: str, quick: Quick, folder: Path) -> None:
    made = result(quick(*shlex.split(command)[2:], *SHORT, "dataset.batch_size=700"), folder)
    assert made["metrics"]["test_loss"] > 0


def test_the_chapter_names_every_way(folder: Path) -> None:
    text = " ".join(COMMANDS)
    for word in ("import=my_nets", "optimizer/any", "dataset=folder", "dataset=table", "teacher="):
        assert word in text


def test_nothing_is_imported_without_the_word_and_a_finished_run_is_still_shown(
    quick: Quick, folder: Path
) -> None:
    marked = f"from pathlib import Path\nPath('imported').touch()\n{NETWORKS}"
    (folder / "my_nets.py").write_text(marked)
    words = ["paper=yogi", "model._target_=my_nets.Net", *SHORT, "dataset.limit=50"]
    refused = quick(*words)
    assert refused.returncode == 1
    assert "import=my_module" in refused.stderr
    assert not (folder / "imported").exists()
    made = result(quick(*words, "import=my_nets"), folder)
    assert made["config"]["model"] == {"_target_": "my_nets.Net"}
    assert "import" not in made["config"]
    (folder / "imported").unlink()
    shown = quick(*words)
    assert "already done" in shown.stdout
    assert "changed" not in shown.stdout
    assert not (folder / "imported").exists()
    # the code of the module decides the result
    (folder / "my_nets.py").write_text(marked.replace("width: int = 8", "width: int = 9"))
    assert "the code has changed since" in quick(*words, "import=my_nets").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("paper=yogi import=my_nts", r"import=my_nts: neither my_nts\.py nor .* no package of this name"),
        ("paper=yogi model=own", r"model\._target_: name a class"),
        ("paper=yogi import=bad.py model._target_=bad.Seven", r"bad\.Seven gives \(b, 7\); valid: \(b, 10\)"),
        (
            "paper=yogi import=bad.py model._target_=bad.Fails",
            r"fails on inputs of shape \(2, 1, 8, 8\): Runti",
        ),
        (
            "paper=yogi import=bad.py model._target_=bad.Asks",
            r"bad\.Asks needs depth: give it as model\.depth",
        ),
        ("paper=yogi import=bad.py model._target_=bad.none", r"bad\.none gives a NoneType"),
        ("paper=yogi import=broken", r"broken\.py, line 1: NameError: name 'nn' is not defined"),
        ("paper=moonshine import=bad.py model._target_=bad.Plain", r"names no features .*features = \("),
        ("paper=one import=bad.py model._target_=bad.Plain", r"cannot be cut between stages .*split\(unsha"),
        ("paper=yogi dataset=folder", r"dataset\.path=: give a path .*FOLDER/train/CLASS"),
        ("paper=yogi dataset=table dataset.path=no.csv", r"dataset\.path=no\.csv: no such file"),
        (
            "paper=yogi dataset=table dataset.path=sales.csv dataset.target=prize",
            r"dataset\.target=prize: no",
        ),
    ],
)
def test_what_is_missing_is_named_in_one_line(words: str, said: str, quick: Quick, folder: Path) -> None:
    (folder / "broken.py").write_text("class Net(nn.Module): pass\n")
    (folder / "bad.py").write_text(
        "from torch import nn\n"
        "class Plain(nn.Sequential):\n"
        "    def __init__(self, classes):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, classes))\n"
        "class Seven(Plain):\n"
        "    def __init__(self):\n"
        "        super().__init__(7)\n"
        "class Fails(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Linear(9, 10))\n"
        "class Asks(Plain):\n"
        "    def __init__(self, classes, depth):\n"
        "        super().__init__(classes)\n"
        "def none(shape):\n"
        "    return None\n"
    )
    ended = quick(*shlex.split(words), *SHORT, TEACHER if "moonshine" in words else "seed=0")
    assert ended.returncode == 1
    # on a busy machine the teacher's progress is said too
    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("[")]
    assert re.search(said, line)
