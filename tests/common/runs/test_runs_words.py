from random import Random

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from common.runs.compose import compose
from common.runs.evidence import asked
from common.runs.words import quoted, text_of, texts_of


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("teacher=model=mlp method=optimizer/adam", "teacher='model=mlp method=optimizer/adam'"),
        ("teacher=entry=moonshine.table2.x", "teacher='entry=moonshine.table2.x'"),
        ("+method.teacher=model=mlp", "+method.teacher='model=mlp'"),
        ("teacher=model.block='a=b'", "teacher='model.block=\\'a=b\\''"),
        *((word, word) for word in ("paper=yogi", "teacher='model=mlp'", 'teacher="model=mlp"', "--cfg")),
        *((word, word) for word in ("entry=glob(a*,exclude=b*)", "teacher=outputs/x/last.ckpt")),
        ("a=[b=c]", "a=['b=c']"),
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


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("sales (1).csv", "sales (1).csv"),
        ("Bücher/Umsatz €.csv", "Bücher/Umsatz €.csv"),
        ("it's; here.csv", "it's; here.csv"),
        ("income (EUR, net)", "income (EUR, net)"),
        ("my run/lr=3/x.csv", "my run/lr=3/x.csv"),
        ("~\\x\\", "~\\x\\"),
        ("[income €, a b,c (x)]", ["income €", "a b", "c (x)"]),
        *((plain, plain) for plain in ("my tables/x.csv", "50%", "a:b", "C:x")),
        ("-1", -1),
        ("[a,b]", ["a", "b"]),
        ("'a, b'", "a, b"),
        ("int(3)", 3),
    ],
)
def test_names_of_files_and_columns_reach_hydra_as_they_are(value: str, wanted: object) -> None:
    (word,) = quoted([f"dataset.path={value}"])
    assert OverridesParser.create().parse_override(word).value() == wanted
    assert quoted([word]) == [word]
    if isinstance(wanted, str):
        assert text_of(word.partition("=")[2]) == wanted


def test_what_hydra_can_read_is_left_to_it() -> None:
    random, parser, changed = Random(0), OverridesParser.create(), 0
    pieces = [*"ab1.,()[]{}=:'\"\\ $€ü~/-&*%", "choice(", "tag(", "${a}", "1e3", "null", "a,b"]

    def read(word: str) -> tuple[bool, str] | None:
        try:
            found = parser.parse_override(word)
        except HydraException:
            return None
        return found.is_sweep_override(), repr(found.get_value_string())

    for _ in range(1000):
        word = "a=" + "".join(random.choices(pieces, k=random.randint(0, 6)))
        (again,) = quoted([word])
        before, after = read(word), read(again)
        assert before is None or before == after, word
        changed += before is None and after is not None
    assert changed > 300


def test_the_home_folder_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert quoted(["output_dir=~/runs"]) == ["output_dir='/home/me/runs'"]
    assert quoted(["dataset.path=~/a.csv,~x"]) == ["dataset.path='/home/me/a.csv','~x'"]


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("a,b.csv", ["a", "b.csv"]),
        ("'x (1).csv',y", ["x (1).csv", "y"]),
        ("'a'", ["a"]),
        ("", [""]),
        *((value, []) for value in ("choice(a,b)", "[a,b]", "glob(*)", "{a: 1}")),
    ],
)
def test_a_sweep_lists_its_texts(value: str, texts: list[str]) -> None:
    assert texts_of(value) == texts


@pytest.mark.parametrize("value", ["a,b.csv", "choice(a,b)", "[a]", "{a: 1}", "'a','b'", "'a"])
def test_what_stands_for_no_single_text_has_none(value: str) -> None:
    assert text_of(value) is None


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("import=a,b/c.py", "import='a,b/c.py'"),
        ("import='a,b'", "import='a,b'"),
        ("import=[a, b]", "import='a,b'"),
        ("import=['a',\"b\"]", "import='a,b'"),
        ('import="my nets.py"', "import=my nets.py"),
        ("import=", "import="),
    ],
)
def test_modules_are_one_value_however_they_are_listed(word: str, wanted: str) -> None:
    assert quoted([word]) == [wanted]
