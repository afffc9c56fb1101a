"""Runs that need other runs first: what they inherit, when they are made, and what is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from common.base.errors import UserError
from common.runs.compose import compose
from common.runs.inheritance import composing
from common.runs.keys import run_key
from common.runs.pipeline import make_stages
from common.runs.request import Outcome
from common.runs.runner import execute, first_network, trained_module

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

SMALL = ["paper=yogi", "dataset=digits", "model=mlp", "dataset.limit=100", "logger=none", "trainer=cpu"]
TEACHER = "model=mlp method=optimizer/adam paper.epochs=1"


def student(folder: Path, *words: str, teacher: str = TEACHER) -> Outcome:
    word = f"teacher='{teacher}'"
    return execute(
        *compose([*SMALL, "method=distillation/kd", "paper.epochs=1", word, f"output_dir={folder}", *words])
    )


def stage_of(folder: Path, *words: str, teacher: str = TEACHER) -> dict[str, Any]:
    """What a student's result says of its teacher."""
    return student(folder, *words, teacher=teacher).result["stages"]["teacher"]


def test_the_student_takes_its_teachers_test_metrics_into_its_result(tmp_path: Path) -> None:
    outcome = student(tmp_path)
    teacher = execute(*compose([*SMALL, "method=optimizer/adam", "paper.epochs=1", f"output_dir={tmp_path}"]))
    assert teacher.skipped
    assert outcome.result["metrics"]["teacher_test_accuracy"] == teacher.result["metrics"]["test_accuracy"]
    assert outcome.result["stages"]["teacher"]["key"] == f"yogi/{teacher.path.parent.name}"


def test_deleting_a_student_trains_the_student_alone_again(tmp_path: Path) -> None:
    outcome = student(tmp_path)
    teacher = tmp_path / outcome.result["stages"]["teacher"]["key"] / "result.json"
    made = teacher.stat().st_mtime_ns
    shutil.rmtree(outcome.path.parent)
    again = student(tmp_path)
    assert not again.skipped
    assert again.result["metrics"] == outcome.result["metrics"]
    assert teacher.stat().st_mtime_ns == made


def test_a_teacher_whose_checkpoint_is_gone_is_trained_again_to_the_same_weights(tmp_path: Path) -> None:
    outcome = student(tmp_path)
    (tmp_path / outcome.result["stages"]["teacher"]["key"] / "last.ckpt").unlink()
    shutil.rmtree(outcome.path.parent)
    assert student(tmp_path).result["metrics"] == outcome.result["metrics"]


def test_students_of_all_seeds_share_one_teacher_that_sees_all_examples(tmp_path: Path) -> None:
    teacher = f"{TEACHER} dataset.limit=null"
    assert len({stage_of(tmp_path, f"seed={seed}", teacher=teacher)["key"] for seed in (0, 1)}) == 1


def test_a_teacher_takes_the_students_data_settings_but_for_those_that_it_sets_itself(tmp_path: Path) -> None:
    inherited = stage_of(tmp_path, "dataset.batch_size=50")["config"]["dataset"]
    assert (inherited["limit"], inherited["batch_size"]) == (100, 50)
    own = stage_of(tmp_path, "dataset.batch_size=50", teacher=f"{TEACHER} dataset.limit=200")["config"][
        "dataset"
    ]
    assert (own["limit"], own["batch_size"]) == (200, 50)


def test_a_teacher_is_found_by_the_words_that_a_user_would_type(tmp_path: Path) -> None:
    key = stage_of(tmp_path, "dataset.batch_size=50")["key"]
    typed = [*SMALL, "method=optimizer/adam", "paper.epochs=1", "dataset.batch_size=50"]
    assert run_key(compose(typed)[0]) == key


def test_the_scale_reaches_the_teacher_and_the_students_key(tmp_path: Path) -> None:
    words = [*SMALL, "method=distillation/kd", "paper.epochs=1", "teacher='model=mlp method=optimizer/adam'"]
    keys = {run_key(compose([*words, f"scale={scale}"])[0]) for scale in ("smoke", "laptop")}
    assert len(keys) == 2
    stage = stage_of(tmp_path, "scale=smoke", teacher="model=mlp method=optimizer/adam")
    assert stage["config"]["paper"]["epochs"] == 1.0


def test_the_teacher_alone_does_not_change_the_key_of_a_run_without_one() -> None:
    plain = [*SMALL, "method=optimizer/adam"]
    assert run_key(compose(plain)[0]) == run_key(compose([*plain, "teacher=anything"])[0])


def test_a_checkpoint_gives_the_weights_of_its_run(tmp_path: Path) -> None:
    outcome = student(tmp_path)
    path = tmp_path / outcome.result["stages"]["teacher"]["key"] / "last.ckpt"
    by_path = student(tmp_path, teacher=str(path))
    assert by_path.result["metrics"] == outcome.result["metrics"]


def test_bare_weights_are_loaded_into_the_network_that_the_words_name(tmp_path: Path) -> None:
    outcome = student(tmp_path)
    found = torch.load(tmp_path / outcome.result["stages"]["teacher"]["key"] / "last.ckpt", weights_only=True)
    state = {name.removeprefix("model."): value for name, value in found["state_dict"].items()}
    torch.save(state, tmp_path / "bare.pt")
    config, request = compose(
        [
            *SMALL,
            "method=distillation/kd",
            f"output_dir={tmp_path}",
            f"teacher='model=mlp checkpoint={tmp_path}/bare.pt'",
        ]
    )
    stage = make_stages(config, request, execute, trained_module, first_network)["method"]["teacher"].stage
    assert all(torch.equal(stage.model.state_dict()[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    ("teacher", "says"),
    [
        ("nothing", "no such file, and no override string"),
        ("model=mpl", "unknown model=mpl; did you mean mlp"),
        ("modl=mlp", "Could not override 'modl'"),
        ("model=mlp method=distillation/kd", "method.teacher=null"),
        ("model=mlp checkpoint=nowhere.pt", "nowhere.pt: no such file"),
        (
            "model=mlp method=variance_reduction/svrg",
            "paper=yogi does not take method=variance_reduction/svrg",
        ),
    ],
)
def test_a_teacher_that_cannot_be_had_is_one_line_with_its_words(
    teacher: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says) as caught:
        student(tmp_path, teacher=teacher)
    assert str(caught.value).startswith(f"teacher={teacher}: ")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "bare.pt")
    with pytest.raises(UserError, match="is of another network"):
        student(tmp_path, teacher=f"model=mlp checkpoint={tmp_path}/bare.pt")


def test_a_teacher_that_no_method_uses_is_refused(tmp_path: Path) -> None:
    words = [*SMALL, "method=optimizer/adam", "teacher='model=mlp'", f"output_dir={tmp_path}"]
    with pytest.raises(UserError, match="method=optimizer/adam learns from no teacher"):
        execute(*compose(words))


def test_a_run_that_needs_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.runs.pipeline._under_way", ["yogi/x"])
    monkeypatch.setattr("common.runs.runner.run_key", lambda config: "yogi/x")
    with pytest.raises(UserError, match="needs itself"):
        execute(*compose([*SMALL, "method=optimizer/adam", f"output_dir={tmp_path}"]))


def test_composing_inside_a_job_leaves_hydra_as_it_was() -> None:
    compose([*SMALL])
    before = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    with composing():
        compose(["entry=yogi.table_ae.mnist_yogi"])
    assert (GlobalHydra.instance().hydra, HydraConfig.instance().cfg) == before


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs that share their teachers."""
    return tmp_path_factory.mktemp("outputs")


def composed(folder: Path, *words: str) -> Outcome:
    """A student of `distillation/kd` within another one of its kind."""
    return student(folder, "inner=distillation/kd", *words)


def test_a_method_and_the_one_within_it_have_each_a_teacher_of_its_own(tmp_path: Path) -> None:
    other = "model=mlp model.hidden=[7] method=optimizer/adam paper.epochs=1"
    result = composed(tmp_path, f"method.inner.teacher='{other}'").result
    stages = result["stages"]
    assert [stages[key]["words"] for key in ("teacher", "inner.teacher")] == [TEACHER, other]
    assert stages["inner.teacher"]["config"]["model"]["hidden"] == [7]
    theirs = stages["inner.teacher"]["metrics"]["test_accuracy"]
    assert result["metrics"]["inner_teacher_test_accuracy"] == theirs
    inner = result["config"]["method"]["inner"]
    assert inner["teacher"] == other and "optimizer" not in inner


def test_without_words_of_their_own_both_learn_from_the_runs_teacher(tmp_path: Path) -> None:
    stages = composed(tmp_path).result["stages"]
    assert stages["teacher"]["key"] == stages["inner.teacher"]["key"]
    assert composed(tmp_path, "method@method.inner=distillation/kd").skipped


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.inner.temperature=0"], r"^method\.inner\.temperature=0: must be positive"),
        (["method.inner.teacher=null"], r"^method\.inner\.teacher=null: name what is to be used"),
        (["method.inner.optimizer.lr=1"], r"^method\.inner\.optimizer\.lr: the outermost method's optimizer"),
        (["method/optimizer@method.inner.optimizer=adam"], r"the outermost method's optimizer steps"),
        (["+method.inner.beta=1"], r"^method\.inner\.beta=1: .* takes no 'beta' \(valid: teacher, .*inner\)"),
        (
            ["inner=acquisition/ei"],
            r"^inner=acquisition/ei: cannot be within distillation/kd \(valid: distillation/",
        ),
        (
            ["inner=optimizer/adam"],
            r"^inner=optimizer/adam: cannot be within distillation/kd \(valid: distillation/",
        ),
        (
            ["method=optimizer/sgd"],
            r"^inner=distillation/kd: optimizer/sgd takes no inner method \(valid: distillation/attention",
        ),
        (
            ["inner=distillation/one", "inner.inner=distillation/kd"],
            r"^inner\.inner=distillation/kd: distillation/one takes no inner method \(valid: distillation/",
        ),
        (["inner=distillation/dml"], r"^method\.inner: Mutual makes forward passes of its own"),
    ],
)
def test_what_a_method_within_a_method_may_not_be_is_said_by_its_key(
    words: list[str], message: str, shared: Path
) -> None:
    with pytest.raises(UserError, match=message):
        composed(shared, *words)
