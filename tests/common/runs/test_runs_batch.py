from pathlib import Path

import pytest

from common.runs.batch import Batch
from common.runs.keys import run_key
from common.runs.sweep import note_different, varying


def test_each_job_of_a_list_composes_with_its_own_words_after_the_shared_ones() -> None:
    jobs = [
        ["paper=yogi", "seed=7", "scale=smoke"],
        ["paper=spider", "dataset=synthetic_logistic_n1e3"],
        ["entry=yogi.table_ae.mnist_yogi", "scale=laptop"],
    ]
    batch = Batch(["seed=1", "hydra/launcher=basic"], jobs)
    first, second, third = (batch.compose(job) for job in batch.jobs)
    assert (first.seed, first.paper.epochs) == (7, 1.0)
    assert (second.seed, second.dataset.n) == (1, 1000)
    assert (third.seed, third.dataset.limit, third.method.lr) == (1, 10000, 0.01)
    assert run_key(second).startswith("spider/")


def test_the_launcher_is_the_one_that_the_shared_words_name() -> None:
    batch = Batch(["hydra/launcher=joblib", "hydra.launcher.n_jobs=3"], [["paper=yogi"]])
    assert batch.config.hydra.launcher.n_jobs == 3
    assert batch.jobs == [["paper=yogi"]]


def test_a_job_that_does_not_compose_raises_alone() -> None:
    batch = Batch([], [["paper=yogi", "paper.nothing=1"], ["paper=yogi"]])
    with pytest.raises(Exception, match="nothing"):
        batch.compose(batch.jobs[0])
    assert batch.compose(batch.jobs[1]).paper.epochs == 20.0


def test_a_job_of_a_list_is_called_by_the_words_that_not_all_have(tmp_path: Path) -> None:
    jobs = [["paper=yogi", "seed=0"], ["paper=yogi", "seed=1"], ["paper=yogi", "seed=0", "scale=smoke"]]
    note_different(tmp_path, jobs)
    assert [varying(tmp_path, job) for job in jobs] == [["seed=0"], ["seed=1"], ["seed=0", "scale=smoke"]]
