"""The evaluation of a finished run on another data set."""

import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from pages import commands
from PIL import Image

from common.base.errors import UserError
from common.runs.compose import compose
from common.runs.evaluate import _changed_since, evaluate, main
from common.runs.result import read_result
from common.runs.runner import build, execute
from common.runs.trained import find, trained

WORDS = ["scale=smoke", "logger=none", "trainer=cpu"]


def made(folder: Path, *words: str) -> tuple[list[str], Path]:
    """Make a run; its words and its folder."""
    asked = [*words, *WORDS, f"output_dir={folder}"]
    return asked, execute(*compose(asked)).path.parent


@pytest.mark.parametrize(
    "words", [["dataset=digits"], ["dataset=diabetes"], ["dataset=breast_cancer"]], ids=lambda words: words[0]
)
def test_on_its_own_data_set_a_run_has_its_own_test_metrics_whatever_the_limit(
    tmp_path: Path, words: list[str]
) -> None:
    asked, folder = made(tmp_path, "paper=yogi", *words, "dataset.limit=100")
    path, metrics = evaluate([*asked, *words, "dataset.limit=50"])
    result = read_result(folder / "result.json")
    assert result is not None and metrics
    assert metrics == {name: result["metrics"][name] for name in metrics}
    again, by_folder = evaluate([str(folder), *words, "dataset.limit=50"])
    assert (again, by_folder) == (path, metrics)
    written = json.loads(path.read_text())
    assert path.parent == folder and written["metrics"] == metrics
    assert written["dataset"]["limit"] == 50 and written["run"] == f"yogi/{folder.name}"


def test_other_data_are_normalised_as_those_that_the_network_was_trained_on(tmp_path: Path) -> None:
    asked, _ = made(tmp_path, "paper=yogi", "dataset=digits", "dataset.normalise=unit_interval")
    other = ["dataset=digits", "dataset.source=synthetic"]
    _, metrics = evaluate([*asked, *other])
    path, the_same = evaluate([*asked, *other, "dataset.normalise=none"])
    assert metrics == the_same
    assert json.loads(path.read_text())["facts"]["normalise"] == "unit_interval"
    _, own = evaluate([*asked, "dataset=digits"])
    assert own["test_loss"] != metrics["test_loss"]


def test_what_does_not_fit_is_said_in_one_line(tmp_path: Path) -> None:
    asked, folder = made(tmp_path, "paper=yogi", "dataset=digits")
    for words, line in {
        "dataset=digits dataset.positive=[1]": "digits has classes 2, and .* on digits with classes 10",
        "dataset=mnist": "dataset=mnist has shape 1x28x28, and .* digits with shape 1x8x8",
        "dataset=wine": "dataset=wine has kind tabular_classification",
        "dataset=digit": "unknown dataset=digit; did you mean digits",
        "dataset=digits dataset.limit=0": "dataset.limit=0: give at least 1",
        "dataset=digits dataset.colour=red": "dataset.colour|unknown|Could not override",
        "paper.epochs=3": "name the data set to judge on",
    }.items():
        with pytest.raises((UserError, HydraException), match=line):
            evaluate([str(folder), *words.split()])
    with pytest.raises(UserError, match=r"no finished run in .*; this makes it: python run.py paper=yogi"):
        evaluate(["paper=yogi", "seed=7", *WORDS, f"output_dir={tmp_path}", "dataset=digits"])
    with pytest.raises(UserError, match=r"dataset=digits names what to judge on \(the run's own"):
        evaluate(["paper=yogi", "seed=7", *WORDS, f"output_dir={tmp_path}", "dataset=digits"])
    words, _ = made(tmp_path, "paper=spider")
    with pytest.raises(UserError, match="SpiderModule trains no network"):
        evaluate([*words, "dataset=digits"])
    assert asked


# what decides the class, another number, a word
ROWS = [
    [
        f"{(i * 37 % 19 - 9) / 3:.2f}" if i % 9 else "",
        str(i * 11 % 13),
        ["red", "green"][i % 2],
        "no" if i * 37 % 19 < 9 else "yes",
    ]
    for i in range(60)
]
NAMES = ["size", "age", "colour", "bought"]


def written(path: Path, names: list[str], rows: list[list[str]]) -> str:
    path.write_text("".join(",".join(row) + "\n" for row in [names, *rows]))
    return str(path)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the first 40 rows as `own.csv`, the others as `new.csv`, and a run in `run`."""
    folder = tmp_path_factory.mktemp("shop")
    own = written(folder / "own.csv", NAMES, ROWS[:40])
    written(folder / "new.csv", NAMES, ROWS[40:])
    words = ["paper=yogi", "dataset=table", f"dataset.path={own}", "method.lr=0.1", "paper.epochs=30"]
    _, run = made(folder, *words)
    (folder / "run").symlink_to(run)
    return folder


def judged(shop: Path, name: str, *words: str) -> dict[str, Any]:
    """The evaluation of the run on a table of the folder."""
    path, _ = evaluate([str(shop / "run"), "dataset=table", f"dataset.path={shop / name}", *words])
    return dict(json.loads(path.read_text()))


def test_all_rows_of_another_table_count_and_of_its_own_those_that_the_run_held_out(shop: Path) -> None:
    new = judged(shop, "new.csv")
    assert new["examples"] == 20
    assert new["tested"] == f"all rows of {shop / 'new.csv'}"
    own = judged(shop, "own.csv")
    result = read_result(shop / "run" / "result.json")
    assert result is not None
    assert own["metrics"] == {name: result["metrics"][name] for name in own["metrics"]}
    assert (own["examples"], own["tested"]) == (8, f"rows held out of {shop / 'own.csv'}")
    # a copy is known by what it holds
    (shop / "copy.csv").write_text((shop / "own.csv").read_text())
    assert judged(shop, "copy.csv")["metrics"] == own["metrics"]
    with pytest.raises(UserError, match=r"dataset\.test=0\.5: the run held out 0\.2 of this table"):
        judged(shop, "own.csv", "dataset.test=0.5")
    assert judged(shop, "own.csv", f"dataset.test_path={shop / 'new.csv'}")["metrics"] == new["metrics"]


def test_it_is_said_that_the_runs_own_file_has_changed_so_that_trained_rows_are_judged(shop: Path) -> None:
    own, text = shop / "own.csv", (shop / "own.csv").read_text()
    try:
        own.write_text(text + "1.5,30,red,yes\n")
        changed = judged(shop, "own.csv")
    finally:
        own.write_text(text)
    assert changed["examples"] == 41
    assert changed["notes"][0] == (
        f"{own} has changed since the run: what the network was trained on is judged with the rest"
    )
    assert not any(
        "has changed" in note for name in ("own.csv", "new.csv") for note in judged(shop, name)["notes"]
    )


def test_columns_are_found_by_name_wherever_they_stand_and_others_are_left_out(shop: Path) -> None:
    order = [3, 2, 0, 1]
    names = [NAMES[place] for place in order]
    written(
        shop / "moved.csv", [*names, "more"], [[*(row[place] for place in order), "7"] for row in ROWS[40:]]
    )
    moved = judged(shop, "moved.csv")
    assert moved["metrics"] == judged(shop, "new.csv")["metrics"]
    assert moved["notes"][0] == "1 columns left out, as training has not got them: more"
    written(shop / "short.csv", NAMES[1:], [row[1:] for row in ROWS[40:]])
    with pytest.raises(UserError, match=r"short\.csv: it lacks 1 of the 3 columns of .*: size \(valid"):
        judged(shop, "short.csv")
    with pytest.raises(UserError, match=r"dataset\.target=bought: no such column"):
        judged(shop, written(shop / "none.csv", NAMES[:3], [row[:3] for row in ROWS]))


def test_classes_words_and_fills_are_the_runs_own_whatever_a_table_holds_of_them(shop: Path) -> None:
    # alone and in another order, each class and word has its own number still
    parts = {name: [row for row in ROWS[40:] if row[3] == name] for name in ("yes", "no")}
    found = {name: judged(shop, written(shop / f"{name}.csv", NAMES, rows)) for name, rows in parts.items()}
    assert found["yes"]["notes"][0] == "no row is of 1 of the classes: no"
    right = sum(one["metrics"]["test_accuracy"] * one["examples"] for one in found.values())
    assert right / 20 == pytest.approx(judged(shop, "new.csv")["metrics"]["test_accuracy"])
    other = [[*row[:3], "maybe"] if row[3] == "no" else row for row in ROWS[40:]]
    with pytest.raises(UserError, match=r"1 classes of its target 'bought' are .*: maybe \(valid: no, yes"):
        judged(shop, written(shop / "other.csv", NAMES, other))
    worded = [[*row[:2], "violet", row[3]] if row[2] == "red" else row for row in ROWS[40:]]
    notes = judged(shop, written(shop / "worded.csv", NAMES, worded))["notes"]
    assert "10 cells of column 'colour' with words that training has not, taken as none: 'violet'" in notes
    assert "2 missing values of column 'size', taken as the mean of training" in notes


def test_classes_that_a_fixed_set_calls_otherwise_are_taken_by_position_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, _ = made(tmp_path, "paper=yogi", "dataset=digits", "dataset.positive=[1]")
    evaluate([*asked, "dataset=digits", "dataset.positive=[2]"])
    assert (
        "classes (not 2, 2, ...) are taken by their position for those of digits (not 1"
        in capsys.readouterr().err
    )


COLOURS = {"ant": (200, 40, 40), "cat": (40, 200, 40), "dog": (40, 40, 200), "eel": (9, 9, 9)}


def pictures(folder: Path, classes: str, count: int, side: int) -> Path:
    for name in classes.split():
        (folder / name).mkdir(parents=True)
        red, green, blue = COLOURS[name]
        for i in range(count):
            image = Image.new("RGB", (side, side + i % 2), (red + 5 * i, green + 4 * i, blue + 3 * i))
            image.save(folder / name / f"{i}.png")
    return folder


def test_another_folder_is_judged_whole_by_the_names_of_its_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = pictures(tmp_path / "own", "ant cat dog", 5, 12)
    words = ["dataset=folder", "dataset.workers=0"]
    asked, folder = made(
        tmp_path,
        "paper=yogi",
        *words,
        f"dataset.path={own}",
        "model=mlp",
        "dataset.batch_size=4",
        "paper.epochs=20",
        "method.lr=0.002",
    )
    result = read_result(folder / "result.json")
    assert result is not None and result["metrics"]["test_error"] == 0

    def judge(path: Path) -> dict[str, Any]:
        found, _ = evaluate([*asked, *words, f"dataset.path={path}"])
        return dict(json.loads(found.read_text()))

    assert judge(own)["metrics"]["test_loss"] == result["metrics"]["test_loss"]
    assert judge(own)["examples"] == 3
    # images of another size, and the second and third class alone
    some = judge(pictures(tmp_path / "some", "cat dog", 4, 20))
    assert some["metrics"]["test_error"] == 0 and some["examples"] == 8
    assert some["notes"] == ["no folder for 1 of the classes: ant"]
    assert judge(pictures(tmp_path / "parts" / "val", "dog", 2, 12).parent)["examples"] == 2
    with pytest.raises(UserError, match=r"1 of its class folders are no .*: eel \(valid: ant, cat"):
        judge(pictures(tmp_path / "bad", "cat eel", 2, 12))
    assert capsys.readouterr().err.count("no folder for 2 of the classes: ant, cat") == 1


def boxes(folder: Path, count: int, *names: str) -> Path:
    """Pictures with an object of each class in VOC's layout."""
    folder.mkdir(parents=True)
    tags = zip(("xmin", "ymin", "xmax", "ymax"), (3, 4, 12, 13), strict=True)
    corners = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
    objects = "".join(f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>" for name in names)
    for i in range(count):
        Image.new("RGB", (40, 30), (90, 70, 5 * i)).save(folder / f"{i}.png")
        (folder / f"{i}.xml").write_text(f"<annotation>{objects}</annotation>")
    return folder


def test_another_folder_of_boxes_is_judged_whole_at_the_size_of_training(tmp_path: Path) -> None:
    own = boxes(tmp_path / "own", 6, "cat", "dog")
    words = ["dataset=folder_boxes", "dataset.workers=0", f"dataset.path={own}"]
    asked, folder = made(tmp_path, "paper=yogi", *words, "dataset.size=[32,32]", "dataset.test=0.34")
    result = read_result(folder / "result.json")
    assert result is not None
    _, metrics = evaluate([*asked, *words])
    assert metrics["test_loss"] == result["metrics"]["test_loss"]
    path, _ = evaluate([*asked, *words[:2], f"dataset.path={boxes(tmp_path / 'new', 3, 'dog')}"])
    told = json.loads(path.read_text())
    assert told["examples"] == 3 and told["facts"]["shape"] == [3, 32, 32]
    assert told["notes"] == ["no box of 1 of the classes: cat"]
    with pytest.raises(UserError, match=r"1 of its classes are no classes of training: eel \(valid: cat"):
        evaluate([*asked, *words[:2], f"dataset.path={boxes(tmp_path / 'bad', 2, 'eel')}"])


def test_a_limit_that_a_scale_brings_takes_all_that_is_there_and_a_typed_one_is_refused(shop: Path) -> None:
    words = ["paper=yogi", "dataset=table", f"dataset.path={shop / 'own.csv'}"]
    config, request = compose([*words, *WORDS])
    data = build(config, request).data
    data.setup()
    assert config.dataset.limit == 100 and data.size("train") == 32
    config, request = compose([*words, *WORDS, "dataset.limit=100"])
    data = build(config, request).data
    with pytest.raises(UserError, match=r"dataset\.limit=100: table has 32 training examples; give 1 to 32"):
        data.setup()


def test_a_run_on_files_by_a_relative_path_says_from_where_it_can_be_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "sales.csv", NAMES, ROWS)
    monkeypatch.chdir(tmp_path)
    words = ["paper=yogi", "dataset=table", "dataset.path=sales.csv", "dataset.target=bought"]
    _, folder = made(tmp_path, *words)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for call in (lambda: evaluate([str(folder), "dataset=digits"]), lambda: trained(find([str(folder)]))):
        with pytest.raises(UserError, match=r"dataset\.path=sales\.csv: .* not there from .*/elsewhere"):
            call()
    monkeypatch.chdir(tmp_path)
    assert trained(find([str(folder)])).network is not None


@pytest.mark.parametrize("command", commands("python evaluate.py"))
def test_the_commands_of_the_pages_print_the_metrics_one_a_line_and_on_how_many_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    priced = [[*row, str(i / 3)] for i, row in enumerate(ROWS)]
    written(tmp_path / "sales.csv", [*NAMES, "price"], priced[:40])
    written(tmp_path / "new_sales.csv", [*NAMES, "price"], priced[40:])
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)[2:]
    last = max(place for place, word in enumerate(words) if word.startswith("dataset="))
    asked, _ = made(tmp_path, *words[:last])
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *asked, *words[last:]])
    assert main() == 0
    *lines, on, path = capsys.readouterr().out.splitlines()
    assert on in (
        "judged on 256 examples: the test part of digits",
        "judged on 20 examples: all rows of new_sales.csv",
    )
    assert {line.split()[0] for line in lines} >= {"test_loss", "test_error", "test_accuracy"}
    assert path.startswith("evaluation: ") and Path(path.split()[1]).is_file()


def test_only_of_a_file_that_has_changed_what_was_trained_on_is_judged_with_the_rest(tmp_path: Path) -> None:
    file, data = tmp_path / "mine.tsv", SimpleNamespace(held_out=False)
    file.touch()

    def notes(path: Path) -> list[str]:
        run = SimpleNamespace(config=OmegaConf.create({"dataset": {"path": str(path)}}))
        return _changed_since(run, data, {"path": str(path)})  # type: ignore[arg-type]

    assert len(notes(file)) == 1 and "has changed since the run" in notes(file)[0]
    # of a folder of texts its test part alone is judged
    assert notes(tmp_path) == []
