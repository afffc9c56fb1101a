"""Tagged sentences: read in any scheme, numbered, spelled and padded; what is refused has its line."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from common.base.dataset import Origin
from common.base.errors import UserError
from common.data.tagging.python_tags import tagged
from common.data.tagging.tagged_file import Sentence, read_sentences
from common.data.tagging.tagging_data import IGNORE

Make = Callable[..., Any]
TWO = (
    "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n\n\n"
    "Peter\tNNP\tB-PER\nBlackburn\tNNP\tI-PER\n"
)


def read(path: Path, text: str, file_scheme: Any = "bio", **settings: Any) -> list[Sentence]:
    path.write_bytes(text.encode(settings.pop("written", "utf-8")))
    given = {"scheme": "bio", "encoding": "utf-8", "longest": 20} | settings
    return read_sentences(path, file_scheme, **given)


def test_the_first_column_is_the_word_and_the_last_its_tag(tmp_path: Path) -> None:
    wanted = [
        Sentence(("EU", "rejects"), ("B-ORG", "O")),
        Sentence(("Peter", "Blackburn"), ("B-PER", "I-PER")),
    ]
    assert read(tmp_path / "a.txt", TWO, "iob1") == wanted
    assert read(tmp_path / "a.txt", TWO.replace("\n", "\r\n"), "iob1") == wanted
    assert read(tmp_path / "a.txt", TWO.replace("I-ORG", "B-ORG"), "bio") == wanted
    bioes = read(tmp_path / "a.txt", TWO, "iob1", scheme="bioes")
    assert [one.tags for one in bioes] == [("S-ORG", "O"), ("B-PER", "E-PER")]
    assert read(tmp_path / "a.txt", "a O\nZürich B-LOC", written="latin-1", encoding="latin-1")[0].words == (
        "a",
        "Zürich",
    )
    # only tabs separate columns where there are some, and no other white space ends a line
    assert read(tmp_path / "a.txt", "New York\tB-LOC\n\u2028x\tO\n")[0].words == ("New York", "x")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TWO, "line 3 has I-ORG behind O, which BIO does not allow .*dataset.file_scheme=iob1"),
        ("a O\n\nb O\nc S-PER\n", "line 4 has 'S-PER', which is no tag of BIO .*dataset.file_scheme=bioes"),
        ("a O\nb B-PER\nc I-LOC\n", "line 3 has I-LOC behind B-PER"),
        ("a O\nalone\n", "line 2 is 'alone' .valid: a word, and its tag last"),
        ("a O\n" + 21 * "x" + " O\n", "line 2 has a word of 21 bytes, .*dataset.longest=21 takes it"),
        ("\n\n", "no sentence in it"),
    ],
)
def test_a_line_that_is_not_what_it_should_be_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        read(tmp_path / "a.txt", text)
    assert "\n" not in str(caught.value)


def test_the_numbers_of_all_faulty_lines_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 1 has I-PER behind O.*wrong in line 4, too$"):
        read(tmp_path / "a.txt", "a I-PER\n\nb O\nc I-LOC\n")
    text = "x O\n\n" + "".join(f"w{n}\n\n" for n in range(20))
    with pytest.raises(UserError, match=r"line 3 is 'w0' .*wrong in lines 5, 7, 9, .*, 23 and 9 more, too$"):
        read(tmp_path / "a.txt", text)


def test_another_encoding_and_an_open_span_are_named_by_their_lines(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="byte 0xfc in line 2"):
        read(tmp_path / "a.txt", "a O\nZürich B-LOC\n", written="latin-1")
    with pytest.raises(UserError, match="line 2 ends its sentence with O behind B-PER"):
        read(tmp_path / "a.txt", "a O\nb B-PER\n\nc O\n", "bioes")
    with pytest.raises(UserError, match="No such file"):
        read_sentences(tmp_path / "none", "bio", "bio", "utf-8", 20)


def test_white_space_that_does_not_break_belongs_to_a_word(tmp_path: Path) -> None:
    for gap in (" ", "  ", "\t"):
        (found,) = read(tmp_path / "a.txt", f"10\u00a0000{gap}B-X \r\n\u3000{gap}O\n")
        assert found == Sentence(("10\u00a0000", "\u3000"), ("B-X", "O"))


def test_a_file_without_empty_lines_is_refused_with_the_line_where_it_begins(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"line 3 begins a sentence of 5001 words .valid: up to 5000; an empty"
    ):
        read(tmp_path / "a.txt", "a O\n\n" + "b O\n" * 5_001)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    words = ["Anna", "went", "to", "Bonn", "in", "1999"]
    tags = ["B-PER", "O", "O", "B-LOC", "O", "O"]
    lines = ["\n".join(f"{w} {t}" for w, t in zip(words[: 2 + n % 5], tags, strict=False)) for n in range(20)]
    path = tmp_path / "mine.conll"
    path.write_text("\n\n".join(lines))
    return path


def test_words_are_numbered_by_how_often_they_occur_and_spelled_in_bytes(make: Make, own: Path) -> None:
    data = make("tagged_file", path=str(own), words=5)
    data.setup()
    assert (data.size("train"), data.size("validation"), data.size("test")) == (16, 2, 2)
    assert data.class_names() == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"] and data.classes == 5
    assert data.vocabulary == ["anna", "went", "to"]
    inputs, targets = data.batch("train", torch.tensor([0, 3]), augment=False)
    assert inputs.shape == (2, 5, 1 + 4) and targets.tolist() == [[3, 0] + 3 * [IGNORE], [3, 0, 0, 1, 0]]
    assert inputs[:, :, 0].tolist() == [[2, 3, 0, 0, 0], [2, 3, 4, 1, 1]]
    assert inputs[1, 2].tolist() == [4, ord("t") + 1, ord("o") + 1, 0, 0]
    assert inputs[0, 2:].eq(0).all()
    # digits are one, and so are cases
    full = make("tagged_file", path=str(own))
    full.setup()
    assert "0000" in full.vocabulary and "bonn" in full.vocabulary


def test_every_sentence_is_in_an_epoch_once_and_in_its_place_when_judged(make: Make, own: Path) -> None:
    data = make("tagged_file", path=str(own), batch_size=3)
    data.setup()
    loader = data.loader(seed=1)
    blocks = islice(loader, loader.steps_per_epoch)
    batches = [data.ready(item) for block in blocks for item in block]
    drawn = sorted(row[row != 0].tolist() for inputs, _ in batches for row in inputs.flatten(1))
    whole = data.batch("train", slice(None), augment=False)[0].flatten(1)
    assert loader.at_epoch_end and drawn == sorted(row[row != 0].tolist() for row in whole)
    judged = [targets for _, targets in data.batches("train", 5)]
    found = [row[row != IGNORE].tolist() for targets in judged for row in targets]
    numbers = {tag: n for n, tag in enumerate(data.tags)}
    assert found == [[numbers[tag] for tag in one.tags] for one in data.sentences("train")]


def test_a_long_sentence_makes_its_batch_a_smaller_one_and_twins_of_training_are_counted(
    make: Make, tmp_path: Path
) -> None:
    texts = ["Anna B-PER\n", "the O\n" * 3_000, "Bob B-PER\n", "Anna B-PER\n"]
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.txt").write_text("\n".join(texts[:1] if name == "train" else texts))
    data = make("tagged_file", path=str(tmp_path))
    data.setup()
    sizes = [tuple(inputs.shape[:2]) for inputs, _ in data.batches("test", 60)]
    assert sizes == [(1, 1), (1, 3_000), (2, 1)]
    assert data.repairs["test sentences that stand in training too (the first: 'Anna')"] == 2


def test_a_limit_draws_by_the_seed_and_is_refused_above_the_size(make: Make, own: Path) -> None:
    first, second = (make("tagged_file", path=str(own), limit=4, seed=seed) for seed in (0, 1))
    first.setup()
    second.setup()
    assert first.size("train") == 4 and first.sentences("train") != second.sentences("train")
    assert first.sentences("test") == second.sentences("test")
    with pytest.raises(UserError, match=r"dataset.limit=17: tagged_file has 16 training sentences"):
        make("tagged_file", path=str(own), limit=17).setup()


def test_a_trained_networks_words_and_tags_keep_their_numbers(make: Make, own: Path, tmp_path: Path) -> None:
    trained = make("tagged_file", path=str(own))
    facts = trained.facts()
    (tmp_path / "new.txt").write_text("Bonn B-LOC\nis O\n\nAnna B-PER\n")
    judged = make("tagged_file", path=str(tmp_path / "new.txt"), origin=Origin(facts, None))
    judged.adopt(facts)
    inputs, targets = judged.batch("test", slice(None), augment=False)
    assert targets.tolist() == [[1, 0], [3, IGNORE]] and judged.classes == 5
    bonn = 2 + trained.vocabulary.index("bonn")
    assert inputs[:, :, 0].tolist() == [[bonn, 1], [2 + trained.vocabulary.index("anna"), 0]]
    assert judged.tested().startswith("all sentences of")
    (tmp_path / "city.txt").write_text("Bonn B-CITY\n")
    with pytest.raises(UserError, match="not those of training: CITY"):
        make("tagged_file", path=str(tmp_path / "city.txt"), origin=Origin(facts, None))


def test_lines_that_end_as_on_old_macs_are_lines(tmp_path: Path) -> None:
    text = TWO.replace("I-ORG", "B-ORG")
    assert read(tmp_path / "a.txt", text.replace("\n", "\r")) == read(tmp_path / "b.txt", text)


def test_a_folder_has_its_three_files_and_types_that_training_has_not_are_refused(
    make: Make, tmp_path: Path
) -> None:
    (tmp_path / "train.tsv").write_text("a\tB-X\n\nb\tO\n")
    (tmp_path / "dev.tsv").write_text("a\tB-X\n")
    (tmp_path / "test.txt").write_text("c\tB-X\nd\tI-X\n")
    data = make("tagged_file", path=str(tmp_path))
    data.setup()
    assert (data.size("train"), data.size("validation"), data.size("test")) == (2, 1, 1)
    (tmp_path / "dev.tsv").rename(tmp_path / "other.tsv")
    with pytest.raises(
        UserError, match=r"No such file as valid\.txt in it; there is .*devel with \.txt, \.tsv"
    ):
        make("tagged_file", path=str(tmp_path), longest=40)
    (tmp_path / "other.tsv").rename(tmp_path / "dev.tsv")
    (tmp_path / "test.txt").write_text("c\tB-Y\n\n\n")
    with pytest.raises(UserError, match="training has no entity of type Y"):
        make("tagged_file", path=str(tmp_path), longest=50).setup()


def test_what_is_no_own_file_is_one_line(make: Make, tmp_path: Path) -> None:
    (tmp_path / "none.conll").write_text("word O\n\n" * 20)
    with pytest.raises(UserError, match=r"none\.conll: no entity in what is trained on: every tag is O"):
        make("tagged_file", path=str(tmp_path / "none.conll"))
    with pytest.raises(UserError, match="give your file"):
        make("tagged_file")
    with pytest.raises(UserError, match="no such file or folder"):
        make("tagged_file", path=str(tmp_path / "none"))
    (tmp_path / "few.txt").write_text("a B-X\n\nb O\n")
    with pytest.raises(UserError, match=r"it has 2 sentences .valid: at least 10"):
        make("tagged_file", path=str(tmp_path / "few.txt"))


@pytest.mark.parametrize(("name", "kinds"), [("conll2003", 9), ("bc5cdr", 5)])
def test_published_corpora_are_read_from_where_a_line_says(
    make: Make, tmp_path: Path, name: str, kinds: int
) -> None:
    data = make(name, verify=False)
    assert data.classes == kinds == data.CLASSES
    with pytest.raises(
        UserError, match=rf"{name}/(eng.train|train.tsv) is missing: put .*dataset=python_tags"
    ) as caught:
        data.setup()
    assert "\n" not in str(caught.value)
    (tmp_path / name).mkdir()
    kind = data.types[0]
    for split in ("train", "dev", "test"):
        (tmp_path / name / f"{split}.txt").write_text(f"Some I-{kind}\nwords I-{kind}\n. O\n")
    data.setup()
    assert data.batch("test", slice(None), augment=False)[1].tolist() == [[1, 2, 0]]
    if name == "conll2003":
        with pytest.raises(UserError, match="1 sentences instead of 14041"):
            make(name).setup()
    (tmp_path / name / "test.txt").write_text("Some I-OTHER\n")
    with pytest.raises(UserError, match="entities of type OTHER"):
        make(name, verify=False).setup()


def test_synthetic_sentences_need_no_file(make: Make) -> None:
    data = make("conll2003", source="synthetic", scheme="bioes")
    data.setup()
    assert data.size("train") == 256 and data.classes == 17
    assert {tag for one in data.sentences("train") for tag in one.tags} == {"O", "S-PER"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("words", 1), ("kept_from", 0), ("longest", 0), ("batch_size", 0), ("limit", 0), ("kind", "x")],
)
def test_bad_settings_are_one_line(make: Make, key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"dataset.{key}={value}"):
        make("python_tags", **{key: value})


def test_names_and_strings_of_python_are_found_by_its_syntax() -> None:
    source = (
        "import os.path as p, sys\nfrom a.b import c, d\nfrom . import x\n"
        "class A(B, m.C):\n    def é(self, x):  # not a comment\n        return g.h('a b', x) + (k)(2)\n"
    )
    found = [" ".join(f"{w}/{t}" for w, t in zip(*one, strict=True)) for one in tagged(source, "bio")]
    assert found == [
        "import/O os/B-module ./I-module path/I-module as/O p/O ,/O sys/B-module",
        "from/O a/B-module ./I-module b/I-module import/O c/O ,/O d/O",
        "from/O ./B-module import/O x/O",
        "class/O A/B-class (/O B/B-class ,/O m/O ./O C/B-class )/O :/O",
        "def/O é/B-function (/O self/O ,/O x/O )/O :/O",
        "return/O g/O ./O h/B-function (/O '/B-string a/I-string b/I-string '/I-string ,/O x/O )/O +/O (/O "
        "k/B-function )/O (/O 2/O )/O",
    ]


def test_there_is_enough_of_python_and_its_files_are_in_one_split_each(make: Make) -> None:
    data = make("python_tags")
    data.setup()
    assert data.size("train") > 2000 and data.size("validation") > 200 and data.size("test") > 200
    tags = {tag for one in data.sentences("train") for tag in one.tags}
    assert {f"B-{kind}" for kind in data.TYPES} < tags
    assert 500 < len(data.vocabulary) < 20_000
    short = make("python_tags", longest=12)
    short.setup()
    (dropped,) = short.repairs.values()
    assert (
        0 < dropped == sum(data.size(split) - short.size(split) for split in ("train", "validation", "test"))
    )
    assert not data.repairs
