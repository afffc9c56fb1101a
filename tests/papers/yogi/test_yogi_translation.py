"""Translation as the paper's: its rows, and a run that is killed within an epoch."""

import json
from pathlib import Path
from typing import Any

import pytest
from calls import HANGS, Calls

from common.runs.check_entries import check_row, compose_and_build
from common.tables.tables import entries

ROOT = Path(__file__).resolve().parents[3]
WORDS = [
    *("paper=yogi", "dataset=text_pair", "dataset.path=pairs.tsv", "dataset.level=word", "dataset.longest=8"),
    *("dataset.vocabulary=80", "dataset.batch_size=60", "model.layers=1", "model.width=16", "model.inner=16"),
    *("model.heads=2", "schedule=plateau_validation", "schedule.patience=0", "ema=0.9", "paper.epochs=2.5"),
    *("trainer=cpu", "logger=none"),
]


def test_the_eight_rows_of_the_paper_are_there_and_one_is_only_cited() -> None:
    rows = [entry for entry in entries("yogi") if entry.table == "table_nmt"]
    assert len(rows) == 8 and [entry.row for entry in rows if entry.cited] == ["iwslt15_envi_t2t"]
    for entry in rows:
        if not entry.cited:
            check_row(entry)


def test_noam_rises_for_16_000_steps_of_a_run_as_long_as_the_papers() -> None:
    config, model = compose_and_build(["entry=yogi.table_nmt.iwslt15_envi_adam_noam"])
    assert config.method.lr == 1.0 and config.method.betas == [0.9, 0.997] and config.method.eps == 1e-9
    assert config.schedule.warmup * config.paper.epochs * 1_000 == pytest.approx(16_000)
    assert model.beam == 5 and model.label_smoothing == 0.1 and config.ema == 0.999


def result(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("outputs/yogi/*/result.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.slow
def test_a_run_killed_within_an_epoch_ends_as_an_unbroken_one(calls: Calls, tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu", reason="pip install -e '.[translation]'")
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    lines = [
        f"{n} {colour} dogs {n % 7}\t{n % 7} dogs {n} {colour}\n"
        for n in range(60)
        for colour in ("red", "old")
    ]
    for folder in (unbroken, broken):
        folder.mkdir()
        (folder / "pairs.tsv").write_text("".join(lines))
    finish(calls, unbroken)
    calls.killed_at(1, 3, WORDS, broken)
    finish(calls, broken)
    expected, found = result(unbroken), result(broken)
    assert found["metrics"] == expected["metrics"] and found["history"] == expected["history"]
    assert {"test_bleu", "test_perplexity", "validation_bleu"} <= expected["metrics"].keys()
    assert len(expected["history"]["validation_bleu"]) == 3


def test_a_translator_of_ones_own_pairs_is_judged_on_others_and_translates_a_text(
    calls: Calls, tmp_path: Path
) -> None:
    pytest.importorskip("sacrebleu", reason="pip install -e '.[translation]'")
    lines = [f"{n} {colour} dogs\tdogs {n} {colour}\n" for n in range(60) for colour in ("red", "old")]
    (tmp_path / "pairs.tsv").write_text("".join(lines))
    words = [word for word in WORDS if not word.startswith(("dataset.level", "paper.epochs", "schedule"))]
    ended = calls.run([*words, "dataset.level=bpe", "paper.epochs=1"], tmp_path)
    assert ended.code == 0, ended
    folder = str(Path(ended.out.strip().splitlines()[-1].removeprefix("result: ")).parent)
    (tmp_path / "new.tsv").write_text("".join(lines[:5]))
    judging = [folder, "dataset=text_pair", "dataset.path=new.tsv"]
    judged = calls.run(judging, tmp_path, script=ROOT / "evaluate.py")
    assert judged.code == 0 and "judged on 5 examples: all of the pairs of new.tsv" in judged.out, judged
    assert "test_bleu" in judged.out
    (tmp_path / "new.en").write_text("7 red dogs\n\n9 old dogs\n")
    # by now the file of training holds something else, and the network's vocabulary is still its own
    (tmp_path / "pairs.tsv").write_text("".join(lines[10:]))
    said = calls.run([folder, "new.en", "to=said"], tmp_path, script=ROOT / "predict.py")
    assert said.code == 0 and "2 lines answered" in said.out, said
    text = (tmp_path / "said" / "translations.txt").read_text().split("\n")
    assert len(text) == 4 and text[1] == text[3] == ""
    known = [json.loads(line) for line in (tmp_path / "said" / "translations.jsonl").read_text().splitlines()]
    assert [line["translation"] for line in known] == text[:3]
    assert known[2]["line"] == 3 and known[2]["source"] == "9 old dogs"


def finish(calls: Calls, folder: Path) -> None:
    ended = calls.wait(calls.start(WORDS, folder), HANGS)
    assert ended is not None and ended.code == 0, ended
