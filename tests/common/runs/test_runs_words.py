import pytest

from common.runs.compose import compose
from common.runs.evidence import asked
from common.runs.words import quoted


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("teacher=model=mlp method=optimizer/adam", "teacher='model=mlp method=optimizer/adam'"),
        ("teacher=entry=moonshine.table2.x", "teacher='entry=moonshine.table2.x'"),
        ("+method.teacher=model=mlp", "+method.teacher='model=mlp'"),
        ("teacher=model.block='a=b'", "teacher='model.block=\\'a=b\\''"),
        *((word, word) for word in ("paper=yogi", "teacher='model=mlp'", 'teacher="model=mlp"', "--cfg")),
        *((word, word) for word in ("entry=glob(a*,exclude=b*)", "teacher=outputs/x/last.ckpt", "a=[b=c]")),
    ],
)
def test_a_value_that_is_an_override_string_alone_gets_quotes(word: str, wanted: str) -> None:
    assert quoted([word]) == [wanted]


@pytest.mark.parametrize(
    "teacher", ["model=mlp paper.epochs=2", "model=mlp", "model.block='G(N/4)' model=mlp"]
)
def test_hydra_reads_a_teacher_with_or_without_quotes_as_the_same_words(teacher: str) -> None:
    common = ["paper=yogi", "method=distillation/kd"]
    config, _ = compose([*common, f"teacher={teacher}"])
    assert config.method.teacher == teacher
    if "'" not in teacher:
        assert asked([f"teacher='{teacher}'"]) == asked([f"teacher={teacher}"])


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("inner=distillation/kd", "method@method.inner=distillation/kd"),
        ("inner=distillation/kd,distillation/none", "method@method.inner=distillation/kd,distillation/none"),
        ("inner.inner=distillation/kd", "+method@method.inner.inner=distillation/kd"),
        ("method.inner.teacher=null", "method.inner.teacher=null"),
    ],
)
def test_the_short_form_of_a_method_within_a_method_is_hydras_own(word: str, wanted: str) -> None:
    assert quoted([word]) == [wanted]
    assert asked(["paper=yogi", word]) == asked(["paper=yogi", wanted])


def test_methods_within_methods_come_one_within_another() -> None:
    config, _ = compose(
        ["paper=yogi", *(f"{key}=distillation/kd" for key in ("method", "inner", "inner.inner"))]
    )
    assert config.method.inner.inner._target_ == config.method._target_
    plain, _ = compose(["paper=yogi", "method=distillation/kd"])
    assert "inner" not in plain.method
