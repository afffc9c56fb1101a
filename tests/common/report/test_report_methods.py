from runs_made_up import over_seeds, result, runs

from common.report.methods import methods_of
from common.report.selection import Chosen

ADAM, SGD = "method=optimizer/adam", "method=optimizer/sgd"


def names(*results: dict[str, object]) -> list[str]:
    return [method.name for method in methods_of(runs(*results).runs).methods]


def test_runs_that_differ_in_their_seed_alone_are_one_method() -> None:
    taught = [result(s, f"method.teacher=model=x seed={s} scale=smoke") for s in range(3)]
    assert len(names(*over_seeds([0.1, 0.2, 0.3], ADAM), *taught)) == 2


def test_seeds_that_follow_the_runs_own_stand_in_no_name() -> None:
    def taught(seed: int, rate: str) -> dict[str, object]:
        words = [f"dataset.seed={seed}", f"teacher=entry=x seed={seed}", f"method.lr={rate}"]
        return result(seed, *words)

    found = [taught(seed, rate) for rate in ("1", "2") for seed in range(3)]
    assert names(*found) == ["lr=1", "lr=2"]
    fixed = names(*found, result(0, "dataset.seed=7", "teacher=entry=x", "method.lr=1"))
    assert fixed == ["lr=1", "lr=2", "lr=1 seed=7"]


def test_a_method_is_named_by_the_words_that_differ_and_by_these_alone() -> None:
    both = "paper.epochs=3"
    found = names(result(0, ADAM, both), result(0, SGD, both), result(0, SGD, both, "method.lr=0.5"))
    assert found == ["adam lr=0.01", "sgd lr=0.01", "sgd lr=0.5"]


def test_choices_that_nobody_typed_stand_in_no_name_that_is_one_without_them() -> None:
    first, second = result(0, ADAM), result(0, SGD)
    second["choices"]["schedule"] = "cosine"
    assert names(first, second) == ["adam", "sgd"]
    third = result(0, SGD)
    assert names(first, second, third) == ["adam constant", "sgd cosine", "sgd constant"]


def test_keys_with_the_same_end_are_written_out() -> None:
    found = names(result(0, "method.size=1", "dataset.size=1"), result(0, "method.size=2", "dataset.size=3"))
    assert found == ["dataset.size=1 method.size=1", "dataset.size=3 method.size=2"]


def test_choices_with_the_same_end_are_written_out() -> None:
    found = names(result(0, "method=optimizer/own"), result(0, "method=distillation/own"))
    assert found == ["optimizer/own", "distillation/own"]


def test_a_class_of_ones_own_is_called_by_its_name() -> None:
    mine = result(0, "method=optimizer/any", "method._target_=my_nets.Signs", "method.lr=0.1")
    other = result(0, "method=optimizer/any", "method._target_=torch.optim.RAdam")
    assert names(mine, other, result(0, ADAM)) == ["Signs lr=0.1", "RAdam lr=0.01", "adam lr=0.01"]


def test_words_that_all_have_are_said_apart() -> None:
    found = methods_of(runs(result(0, ADAM, "paper.epochs=3"), result(0, SGD, "paper.epochs=3")).runs)
    assert "paper.epochs=3" in found.alike and "paper=yogi" in found.alike
    assert found.keys == ("method",)


def test_what_nobody_typed_tells_apart_where_nothing_else_does() -> None:
    one, other = result(0), result(0)
    other["config"]["method"]["lr"] = 0.5
    assert names(one, other) == ["lr=0.01", "lr=0.5"]


def test_entries_of_one_data_set_are_named_by_their_rows() -> None:
    results = [result(0, ADAM), result(0, SGD)]
    for one, row in zip(results, ("quick_adam", "slow_sgd"), strict=True):
        one["entries"] = [f"yogi.table.{row}"]
    assert names(*results) == ["quick_adam", "slow_sgd"]


def test_a_label_is_the_name_and_several_of_one_label_say_what_differs_in_them() -> None:
    labelled = [
        Chosen("a", result(0, ADAM), "Ours"),
        Chosen("b", result(0, SGD), "Base"),
        Chosen("c", result(0, SGD, "method.lr=1"), "Base"),
    ]
    found = [method.name for method in methods_of(labelled).methods]
    assert found == ["Ours", "Base lr=0.01", "Base lr=1"]


def test_one_method_alone_has_the_name_of_its_choice() -> None:
    assert names(*over_seeds([0.1, 0.2], ADAM)) == ["adam"]


def test_files_of_ones_own_are_data_sets_of_their_own() -> None:
    paths = [result(0, "dataset=table", f"dataset.path={name}.csv") for name in ("sales", "stock")]
    assert methods_of(runs(*paths).runs).data == ["sales.csv", "stock.csv"]
    deep = [result(0, "dataset=table", f"dataset.path=/data/{name}.csv") for name in ("a/sales", "b/stock")]
    assert methods_of(runs(*deep).runs).data == ["sales.csv", "stock.csv"]
    alike = [result(0, "dataset=folder", f"dataset.path=/data/{name}/photos/") for name in "ab"]
    assert methods_of(runs(*alike).runs).data == ["/data/a/photos/", "/data/b/photos/"]
