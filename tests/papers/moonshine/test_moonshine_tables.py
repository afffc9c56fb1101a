"""The tables: what was transcribed, and that the rows' settings are the paper's losses and recipe."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from common.base.errors import UserError
from common.distillation.losses import at_loss, attention_map, kd_loss
from common.runs.compose import compose
from common.runs.runner import execute
from common.tables.tables import Entry, entries, load_tables
from papers.moonshine.blocks import parse_block

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

ROWS = {f"{entry.table}.{entry.row}": entry for entry in entries("moonshine")}
TABLE_2 = [entry for entry in ROWS.values() if entry.table == "table2"]
METHODS = {
    "scratch": "distillation/none",
    "scratch_teacher": "distillation/none",
    "kd": "distillation/kd",
    "at": "distillation/attention_transfer",
}


def method_of(entry: Entry) -> str:
    return "scratch_teacher" if entry.row.endswith("_teacher") else entry.row.rsplit("_", 1)[1]


def errors() -> dict[str, dict[str, float]]:
    """Test errors of table 2: network with its data set, then method."""
    found: dict[str, dict[str, float]] = {}
    for entry in TABLE_2:
        method = method_of(entry)
        network = entry.row.removesuffix(f"_{method}")
        found.setdefault(network, {})[method] = entry.reported["test_error"]
    return found


@pytest.mark.parametrize("row", ["block_s", "block_g", "block_b", "block_bg"])
@pytest.mark.parametrize(("channels", "b", "g"), [(64, 2, 4), (96, 3, 2), (16, 1, 16)])
def test_the_formulas_of_table_1_are_the_blocks_costs(row: str, channels: int, b: int, g: int) -> None:
    block = {"block_s": "S", "block_g": f"G({g})", "block_b": f"B({b})", "block_bg": f"BG({b},{g})"}[row]
    printed = ROWS[f"table1.{row}"].reported
    values = {"N": channels, "k": 3, "b": b, "g": g}
    formulas = (printed[name].replace("^", "**") for name in ("conv_params", "bn_params"))
    assert parse_block(block).cost(channels) == pytest.approx([eval(f, values) for f in formulas], rel=1e-12)


def test_table_2_has_26_networks_on_two_data_sets_and_a_teacher_of_each() -> None:
    found = errors()
    assert len(found) == 52
    teachers = [network for network, methods in found.items() if set(methods) == {"scratch_teacher"}]
    assert teachers == ["c10_wrn40_2_s", "c100_wrn40_2_s"]
    assert all(set(found[n]) == {"scratch", "kd", "at"} for n in found if n not in teachers)


def test_the_errors_are_such_as_the_paper_says_of_them() -> None:
    # claim C2, and the numbers of C1 and C3
    found = {network: methods for network, methods in errors().items() if "at" in methods}
    assert all(methods["at"] < methods["scratch"] for methods in found.values())
    kd_is_better = [network for network, methods in found.items() if methods["at"] >= methods["kd"]]
    assert sorted(kd_is_better) == ["c100_wrn40_2_bg_2_m_div_16", "c100_wrn40_2_g_n"]
    assert found["c10_wrn40_2_bg_2_2"]["at"] == 5.57 < found["c10_wrn16_2_s"]["at"] == 5.66
    assert found["c10_wrn40_2_g_n_div_8"]["at"] == 5.06


@pytest.mark.parametrize("entry", TABLE_2, ids=lambda entry: entry.row)
def test_a_row_runs_what_its_name_says(entry: Entry) -> None:
    method, data = method_of(entry), "cifar10" if entry.row.startswith("c10_") else "cifar100"
    assert entry.choose["method"] == METHODS[method]
    assert entry.choose["dataset"] == data
    net = (
        f"wrn{entry.values['model.depth']}_{entry.values['model.width']}_{spelt(entry.values['model.block'])}"
    )
    assert entry.row.removesuffix(f"_{method}").split("_", 1)[1] == net
    teacher = f"entry=moonshine.table2.{entry.row.split('_', 1)[0]}_wrn40_2_s_scratch_teacher"
    assert entry.values.get("teacher") == (teacher if method in ("kd", "at") else None)
    recipe = {
        "method.optimizer.lr": 0.1,
        "method.optimizer.momentum": 0.9,
        "method.optimizer.nesterov": False,
        "method.optimizer.weight_decay": 5e-4,
        "schedule.milestones": [0.3, 0.6, 0.8],
        "schedule.factor": 0.2,
        "dataset.augment": "crop_flip",
    }
    assert {key: entry.values[key] for key in recipe} == recipe
    assert entry.budget["paper"] == {"paper.epochs": 200.0, "dataset.limit": None, "dataset.batch_size": 128}


def spelt(block: str) -> str:
    """A block as row names have it: G(N/8) is g_n_div_8."""
    words = block.lower().replace("/", "_div_").replace("-", "_").replace(",", "_")
    return words.replace("(", "_").replace(")", "")


@pytest.mark.parametrize("row", ["table2.c100_wrn40_2_g_4_kd", "digits_probe.g_n_kd"])
def test_kd_is_the_loss_of_the_authors_code(row: str) -> None:
    logits, teachers = torch.randn(2, 8, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels, own = torch.arange(8), logits.clone().float().requires_grad_()
    settings = {key: ROWS[row].values[f"method.{key}"] for key in ("ce_weight", "kd_weight", "temperature")}
    imitation = kd_loss(own, teachers.float(), settings["temperature"], ROWS[row].values["method.reduction"])
    ours = settings["ce_weight"] * functional.cross_entropy(own, labels) + settings["kd_weight"] * imitation
    # `distillation(y, teacher_scores, labels, T=4, alpha=0.9)` as their code has it
    other, t, alpha = logits.clone().float().requires_grad_(), 4, 0.9
    soft = functional.log_softmax(other / t, dim=1), functional.softmax(teachers.float() / t, dim=1)
    theirs = functional.kl_div(*soft) * (t * t * 2.0 * alpha)
    theirs = theirs + functional.cross_entropy(other, labels) * (1.0 - alpha)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(x, y)[0] for x, y in [(ours, own), (theirs, other)]))


def test_at_is_the_loss_of_the_authors_code() -> None:
    values = ROWS["table2.c10_wrn40_2_g_4_at"].values
    own, teachers = torch.randn(2, 4, 32, 8, 8, generator=torch.Generator().manual_seed(0))

    def map_of(x: torch.Tensor) -> torch.Tensor:
        return functional.normalize(x.pow(2).mean(1).view(x.size(0), -1))

    theirs = (map_of(own) - map_of(teachers[:, :16])).pow(2).mean()
    ours = at_loss(attention_map(own), attention_map(teachers[:, :16]), values["method.reduction"])
    torch.testing.assert_close(ours, theirs)
    assert (values["method.beta"], values["method.ce_weight"], values["method.kd_weight"]) == (
        1000.0,
        1.0,
        0.0,
    )


def test_at_has_beta_750_on_the_four_layers_of_imagenet() -> None:
    row = ROWS["table3.res34_g4_at"]
    config, _ = compose(["entry=moonshine.table3.res34_g4_at"])
    assert config.method._target_ == "common.distillation.hints.AttentionTransfer"
    assert row.values["method.beta"] * 3 / 4 == 750


def outcome(folder: Any, *words: str) -> dict[str, Any]:
    config, request = compose([*words, f"output_dir={folder}", "logger=none", "trainer=cpu"])
    return execute(config, request).result


def test_a_students_result_has_its_costs_and_its_teachers_error(tmp_path: Any) -> None:
    row = "digits_probe.g_n_at"
    metrics = outcome(tmp_path, f"entry=moonshine.{row}", "scale=smoke")["metrics"]
    # 8 (16 + ... ) channels of batch normalisation have two statistics each
    assert metrics["parameters"] == 7_946
    assert metrics["parameters_with_statistics"] == 8_714
    # stem; three blocks' first convolutions and shortcuts; classifier
    macs = 64 * 9 * 16 + 64 * 2 * parse_block("G(N)").cost(16)[0]
    macs += 16 * (9 * 16 + 16 * 32 + 9 * 32 + 32 * 32 + 16 * 32 + parse_block("G(N)").cost(32)[0]) + 320
    assert metrics["macs"] == macs
    assert 0 <= metrics["teacher_test_error"] <= 100
    assert metrics["test_error"] == pytest.approx(100 * (1 - metrics["test_accuracy"]))


@pytest.mark.parametrize(
    "row", ["table2.c10_wrn16_1_s_kd", "table3.res18_half_at", "cifar_small.thin_at", "digits_probe.thin_kd"]
)
def test_a_row_of_each_table_runs_on_made_data(row: str, tmp_path: Any) -> None:
    words = [f"entry=moonshine.{row}", "scale=smoke", "dataset.source=synthetic"]
    assert "teacher_test_error" in outcome(tmp_path, *words)["metrics"]


def test_any_model_is_a_student_of_the_default_teacher(tmp_path: Any) -> None:
    # the words of the project's first page: a plain WRN as the student of AT
    words = ["paper=moonshine", "scale=smoke", "model=wrn_16_2", "method=distillation/attention_transfer"]
    assert outcome(tmp_path, *words)["choices"]["model"] == "wrn_16_2"


def test_a_block_that_the_network_cannot_have_is_refused_before_training(tmp_path: Any) -> None:
    words = ["paper=moonshine", "scale=smoke", "method=distillation/none", 'model.block="G(5)"']
    with pytest.raises(UserError, match="16 channels cannot have 5 groups"):
        outcome(tmp_path, *words)


def test_figure_3_shows_the_rows_of_table_2_and_is_no_entry() -> None:
    tables = {table["id"]: table for table in load_tables("moonshine")["tables"]}
    for name in ("fig3a", "fig3b"):
        assert tables[name]["cited"]
        assert [row["id"] for row in tables[name]["rows"]] == [f"{name}_all"]


@pytest.mark.parametrize(("dataset", "pixels"), [("camvid", 512 * 1024), ("digits", 32 * 32)])
def test_attention_weighs_on_scenes_what_it_does_on_the_papers_scenes(dataset: str, pixels: int) -> None:
    config, _ = compose(["paper=moonshine", f"dataset={dataset}"])
    assert config.method.reference_pixels == pixels
