"""Pairs of sentences: read, divided without leaks, encoded and batched by length; what is refused."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.base.dataset import Origin
from common.base.errors import UserError
from common.base.sequence import BOS, EOS, PAD, SPECIAL, UNKNOWN, parted
from common.data.shared.fingerprint import fingerprint
from common.data.text.bucketing import BucketLoader, by_length, cuts, padding
from common.data.text.parallel_text import Pairs, core, divided
from common.data.text.pieces import as_json, from_json, learned
from common.data.text.text_pair import MOST

Make = Callable[..., Any]
NAMES = ["iwslt15_en_vi", "wmt14_en_de", "text_pair", "messages"]
WORDS = ["the", "a", "old", "red", "house", "file", "stands", "opens"]


def sentences(count: int) -> list[str]:
    """So many different ones of up to nine words."""
    found = []
    for number in range(count):
        words = [WORDS[(number // 8**place) % 8] for place in range(1 + number % 5)]
        found.append(" ".join([*words, str(number)]))
    return found


def write_pair(folder: Path, count: int = 200) -> tuple[Path, Path]:
    """Two files, in the second of which each sentence is turned round."""
    source, target = folder / "text.en", folder / "text.rev"
    lines = sentences(count)
    source.write_text("".join(f"{line}\n" for line in lines))
    target.write_text("".join(f"{' '.join(line.split()[::-1])}\n" for line in lines))
    return source, target


@pytest.fixture
def own(make: Make, tmp_path: Path) -> Make:
    """A text_pair of words from two files of 200 lines."""
    source, target = write_pair(tmp_path)

    def build(**keys: Any) -> Any:
        return make("text_pair", **{"path": str(source), "target_path": str(target), "level": "word", **keys})

    return build


# --- lengths and batches ----------------------------------------------------------------------------------


def lengths(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Of sources and targets that are about as long."""
    generator = torch.Generator().manual_seed(seed)
    sources = torch.randint(2, 60, (count,), generator=generator)
    return sources, (sources + torch.randint(-8, 9, (count,), generator=generator)).clamp(2, 70)


def test_an_epoch_has_each_pair_once_and_no_batch_is_above_its_budget() -> None:
    sources, targets = lengths(1_000)
    loader = BucketLoader(sources, targets, 700, seed=3)
    batches = list(loader.items())
    assert len(batches) == loader.steps_per_epoch
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(1_000))
    longest = torch.maximum(sources, targets)
    assert all(len(batch) * int(longest[batch].max()) <= 700 for batch in batches)


def test_a_pair_above_the_budget_has_a_batch_of_its_own() -> None:
    assert cuts(torch.tensor([3, 9, 3]), torch.tensor([3, 2, 3]), 6) == [1, 1, 1]
    assert cuts(torch.tensor([3, 3, 9]), torch.tensor([3, 3, 9]), 6) == [2, 1]
    assert cuts(torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64), 6) == []


def test_at_most_a_tenth_of_the_tokens_is_padding() -> None:
    sources, targets = lengths(20_000)
    batches = list(BucketLoader(sources, targets, 3_000, seed=0).items())
    assert padding(sources, targets, batches) < 0.1
    # by hand: 3 + 2 of 3 + 3 sources, 1 + 4 of 4 + 4 targets
    two = torch.tensor([3, 2]), torch.tensor([1, 4])
    assert padding(*two, [torch.tensor([0, 1])]) == pytest.approx(4 / 14)


def test_pairs_of_equal_lengths_meet_others_in_each_epoch_and_batches_come_in_another_order() -> None:
    sources, targets = lengths(1_000)
    loader = BucketLoader(sources, targets, 700, seed=3)
    first = list(loader.items())
    loader.epoch = 1
    second = list(loader.items())
    assert [batch.tolist() for batch in first] != [batch.tolist() for batch in second]
    assert {frozenset(b.tolist()) for b in first} != {frozenset(b.tolist()) for b in second}
    assert sorted(map(len, first)) == sorted(map(len, second))
    again = list(BucketLoader(sources, targets, 700, seed=3).items())
    assert all(map(torch.equal, first, again))


def test_a_loader_restored_within_an_epoch_goes_on_with_the_same_batches() -> None:
    sources, targets = lengths(300)
    loader = BucketLoader(sources, targets, 700, seed=0)
    steps = loader.steps_per_epoch
    blocks = list(itertools.islice(loader, 2 * steps))
    seen = BucketLoader(sources, targets, 700, seed=0)
    for _ in itertools.islice(seen, steps + 3):
        pass
    resumed = BucketLoader(sources, targets, 700, seed=0)
    resumed.load_state_dict(seen.state_dict())
    rest = list(itertools.islice(resumed, steps - 3))
    for (expected,), (found,) in zip(blocks[steps + 3 :], rest, strict=True):
        assert torch.equal(expected, found)


def test_neighbours_are_alike_in_sources_too() -> None:
    sources, targets = torch.tensor([5, 1, 5, 1, 3]), torch.tensor([2, 2, 3, 3, 2])
    order = by_length(sources, targets, torch.arange(5))
    assert sources[order].tolist() == [1, 3, 5, 5, 1] and targets[order].tolist() == [2, 2, 2, 3, 3]


# --- vocabularies -----------------------------------------------------------------------------------------

TEXT = [
    'Open the file "%s".',
    "Das ist ein Test!",
    "</s> is no end, and ▁ no space",
    "Ätsch: straße (größer)",
]


@pytest.mark.parametrize("level", ["bpe", "character"])
@pytest.mark.parametrize("vocabulary", [60, 500])
def test_pieces_give_each_line_back(level: Any, vocabulary: int) -> None:
    if level == "bpe":
        pytest.importorskip("tokenizers", reason="pip install -e '.[translation]'")
    lines = [line for line in TEXT if level != "bpe" or "▁" not in line]
    pieces = learned(lines, level, vocabulary)
    found = pieces.encode(lines)
    assert [pieces.decode(tokens) for tokens in found] == lines
    assert all(len(SPECIAL) <= token < vocabulary for tokens in found for token in tokens)


@pytest.mark.parametrize("level", ["bpe", "word", "character"])
def test_numbers_of_the_vocabulary_that_stand_for_no_piece_are_no_text(level: Any) -> None:
    if level == "bpe":
        pytest.importorskip("tokenizers", reason="pip install -e '.[translation]'")
    pieces = learned(["a b"], level, 1_000)
    (tokens,) = pieces.encode(["a b"])
    assert pieces.decode([PAD, *tokens, 999, UNKNOWN, EOS]) == "a b"


def test_marks_of_the_vocabulary_in_a_line_are_text() -> None:
    pytest.importorskip("tokenizers", reason="pip install -e '.[translation]'")
    pieces = learned(["</s> <pad> <s> a"] * 3, "bpe", 40)
    (tokens,) = pieces.encode(["a </s> <pad>"])
    assert min(tokens) >= len(SPECIAL) and pieces.decode(tokens) == "a </s> <pad>"


def test_byte_pairs_are_learned_alike_each_time_and_merge_what_is_frequent() -> None:
    pytest.importorskip("tokenizers", reason="pip install -e '.[translation]'")
    lines = sentences(300)
    first, second = (learned(lines, "bpe", 80).encode(lines) for _ in range(2))
    assert first == second
    assert len(learned(lines, "bpe", 200).encode(["the house"])[0]) == 2


@pytest.mark.parametrize("level", ["bpe", "word", "character"])
def test_a_vocabulary_that_was_written_down_is_the_same_one(level: Any) -> None:
    if level == "bpe":
        pytest.importorskip("tokenizers", reason="pip install -e '.[translation]'")
    lines = [*sentences(60), "Ünïcode </s> 1.5%"]
    pieces = learned(lines, level, 80)
    again = from_json(json.loads(json.dumps(as_json(pieces))))
    lines += ["zebras </s> \u2603", ""]
    assert again.encode(lines) == pieces.encode(lines)
    assert [again.decode(one) for one in again.encode(lines)] == list(
        map(pieces.decode, pieces.encode(lines))
    )


def test_what_training_has_not_is_unknown() -> None:
    word, character = (learned(["b a a", "c a"], level, 6) for level in ("word", "character"))
    assert word.encode(["a c b"]) == [[4, UNKNOWN, 5]]
    assert character.encode(["a z"]) == [[5, 4, UNKNOWN]]
    assert word.decode([4, EOS, UNKNOWN, 5]) == "a b"


# --- splits -----------------------------------------------------------------------------------------------


def test_no_side_of_what_is_judged_is_trained_on() -> None:
    sources = [f"message {n}" for n in range(500)] * 2
    targets = [f"Meldung {n % 400}!" for n in range(1_000)]
    parts, left_out = divided(Pairs(sources, targets))
    assert left_out > 0 and sum(map(len, parts.values())) == 1_000 - left_out
    for one, other in itertools.combinations(parts.values(), 2):
        assert not {*map(core, one.sources)} & {*map(core, other.sources)}
        assert not {*map(core, one.targets)} & {*map(core, other.targets)}
    assert 0.7 < len(parts["train"]) / (1_000 - left_out) < 0.9


def test_sentences_that_differ_in_punctuation_or_case_stay_together() -> None:
    assert core("&Open File...") == core("open file") != core("open files")
    assert core("%") == "%"
    sources = [text for n in range(50) for text in (f"Open {n}", f"&open {n}...")]
    parts, _ = divided(Pairs(sources, [str(n) for n in range(100)]))
    assert all(len(part) % 2 == 0 for part in parts.values())


# --- sets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_known_before_setup_and_synthetic_pairs_need_no_file(make: Make, name: str) -> None:
    data = make(name, source="synthetic", data_dir="/nonexistent", limit=40, vocabulary=100)
    assert (data.shape, data.classes, data.KIND) == ((70,), 100, "translation")
    data.setup()
    assert data.size("train") == 40 and data.has_validation
    for split in ("train", "validation", "test"):
        for inputs, targets in data.batches(split, 1_000):
            source, late = parted(inputs)
            assert torch.equal(late[:, 1:], targets[:, :-1]) and (late[:, 0] == BOS).all()
            assert inputs.max() < 100 and not ((source == BOS) | (targets == BOS)).any()


def test_how_many_pairs_were_found_is_said_once(own: Make, capsys: pytest.CaptureFixture[str]) -> None:
    data = own()
    data.setup()
    sizes = [f"{data.size(split)} {split}" for split in ("train", "validation", "test")]
    assert capsys.readouterr().err.count(f"dataset=text_pair: {', '.join(sizes)} pairs\n") == 1


def test_a_batch_holds_the_pairs_asked_for(own: Make) -> None:
    data = own()
    inputs, targets = data.batch("train", torch.tensor([5, 0]), augment=False)
    source, _ = parted(inputs)
    pairs = data.pairs("train")
    for row, place in enumerate([5, 0]):
        assert data.text_of([t for t in source[row].tolist() if t > EOS]) == pairs.sources[place]
        assert data.text_of([t for t in targets[row].tolist() if t > EOS]) == pairs.targets[place]
        assert (targets[row] == EOS).sum() == 1
    assert len(data.batch("test", slice(0, 3), augment=False)[0]) == 3


def test_every_judged_pair_is_in_one_batch(own: Make) -> None:
    data = own(batch_size=70)
    batches = data.judged_batches("test")
    assert len(batches) > 1
    assert torch.cat(batches).sort().values.tolist() == list(range(data.size("test")))


def test_sentences_of_the_users_own_become_what_the_network_gets(own: Make) -> None:
    data = own()
    line = data.pairs("test").sources[0]
    expected = data.sources_of("test", torch.tensor([0]))
    assert torch.equal(data.tokens_of([f"  {line} "]), expected)


def test_limit_and_judged_on_take_so_many(own: Make) -> None:
    data = own(limit=30)
    data.judged_on = 5
    data.setup()
    assert [data.size(split) for split in ("train", "validation", "test")] == [30, 5, 5]
    with pytest.raises(UserError, match=r"dataset\.limit=100000: text_pair has \d+ training pairs"):
        own(limit=100_000).setup()


def test_a_table_and_two_files_of_the_same_pairs_are_the_same_set(own: Make, tmp_path: Path) -> None:
    data = own()
    lines = [(tmp_path / name).read_text().splitlines() for name in ("text.en", "text.rev")]
    table = tmp_path / "pairs.tsv"
    table.write_text("".join(f"{one}\t{other}\tnote\n" for one, other in zip(*lines, strict=True)))
    other = own(path=str(table), target_path=None)
    for split in ("train", "validation", "test"):
        assert data.pairs(split).targets == other.pairs(split).targets


def test_a_folder_has_its_splits_as_they_are(own: Make, tmp_path: Path) -> None:
    for stem, count in {"train": 9, "dev": 2}.items():
        for language in ("en", "vi"):
            (tmp_path / f"{stem}.{language}").write_text("a b\n" * count)
    keys: dict[str, Any] = {"path": str(tmp_path), "target_path": None, "languages": ["en", "vi"]}
    with pytest.raises(UserError, match=r"neither test\.en with test\.vi nor test\.tsv"):
        own(**keys).setup()
    (tmp_path / "test.tsv").write_text("a\tb\n" * 3)
    data = own(**keys)
    data.setup()
    assert [data.size(split) for split in ("train", "validation", "test")] == [9, 2, 3]


def test_files_of_another_length_are_refused_with_the_line(own: Make, tmp_path: Path) -> None:
    target = tmp_path / "text.rev"
    target.write_text("\n".join(target.read_text().split("\n")[:150]) + "\n")
    with pytest.raises(UserError) as error:
        own().setup()
    text = str(error.value)
    assert "text.rev has 150 lines and text.en 200" in text and "line 151" in text and "\n" not in text


def test_an_empty_line_of_one_file_leaves_the_pair_out_of_both_and_is_counted(
    own: Make, tmp_path: Path
) -> None:
    whole = own()
    whole.setup()
    place = whole.pairs("train").lines[3]
    lines = (tmp_path / "text.rev").read_text().split("\n")
    lines[place - 1] = "  "
    (tmp_path / "text.rev").write_text("\n".join(lines))
    data = own()
    data.setup()
    assert data.size("train") == whole.size("train") - 1
    assert place not in data.pairs("train").lines
    (note,) = data.repairs
    assert data.repairs[note] == 1 and "empty line" in note and f"line {place} of text.en" in note


def test_pairs_too_long_to_train_on_are_left_out_counted_and_still_judged(own: Make) -> None:
    data = own(longest=6)
    data.setup()
    whole = own()
    (note,) = data.repairs
    long = [line for line in whole.pairs("train").sources if len(line.split()) > 5]
    assert data.repairs[note] == len(long) == whole.size("train") - data.size("train")
    assert "longer than 6 tokens" in note and "line " in note
    assert data.pairs("test").sources == whole.pairs("test").sources
    with pytest.raises(UserError, match=r"dataset\.longest=2: no training pair of text_pair is as short"):
        own(longest=2).setup()


def test_text_in_another_encoding_is_refused_with_the_line_and_read_when_told(
    own: Make, tmp_path: Path
) -> None:
    lines = (tmp_path / "text.rev").read_text().split("\n")
    lines[11] = "größer"
    (tmp_path / "text.rev").write_bytes("\n".join(lines).encode("latin-1"))
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 0xf6 in line 12\)"):
        own().setup()
    data = own(encoding="latin-1")
    assert "größer" in [
        line for split in ("train", "validation", "test") for line in data.pairs(split).targets
    ]


def test_pairs_that_all_lack_a_side_and_too_few_for_three_splits_are_told(own: Make, tmp_path: Path) -> None:
    count = len((tmp_path / "text.rev").read_text().splitlines())
    (tmp_path / "text.rev").write_text("\n" * count)
    with pytest.raises(UserError, match=r"all \d+ train pairs have an empty line in text\.en"):
        own().setup()
    (tmp_path / "few.tsv").write_text("a\tb\n" * 3)
    with pytest.raises(UserError, match=r"few\.tsv: its 3 pairs do not give three splits"):
        own(path=str(tmp_path / "few.tsv"), target_path=None).setup()


def test_a_word_longer_than_any_teaches_no_pieces_and_its_pair_is_left_out(own: Make, tmp_path: Path) -> None:
    for name in ("text.en", "text.rev"):
        with (tmp_path / name).open("a") as file:
            file.write("y" * 20_000 + "\n")
    data = own(level="bpe")
    data.setup()
    assert "yy" not in data.pieces.tokenizer.get_vocab()
    assert not any("yyy" in line for split in ("train",) for line in data.pairs(split).sources)


def test_a_line_without_a_tab_is_refused_with_its_number(own: Make, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("a\tb\n\nno tab here\n")
    with pytest.raises(UserError, match="line 3 has no tab: 'no tab here'"):
        own(path=str(tmp_path / "a.tsv"), target_path=None).setup()
    (tmp_path / "a.tsv").write_text("a\tb\n\nno tab here\nc\td\nnor here\n")
    with pytest.raises(UserError, match=r"line 3 has no tab: .*wrong in line 5, too$"):
        own(path=str(tmp_path / "a.tsv"), target_path=None).setup()


def test_separators_within_a_line_do_not_end_it(own: Make, tmp_path: Path) -> None:
    for name in ("text.en", "text.rev"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace(" ", "\u2028", 7), newline="\r\n")
    assert sum(own().size(split) for split in ("train", "validation", "test")) == 200


def test_pairs_of_a_folder_that_are_judged_and_trained_on_are_counted_and_stay(
    own: Make, tmp_path: Path
) -> None:
    for stem, text in {"train": "a\tb\nc\td\n\t\n", "dev": "a\tx\n", "test": "e\tf\nc\td\n\t\n"}.items():
        (tmp_path / f"{stem}.tsv").write_text(text)
    data = own(path=str(tmp_path), target_path=None)
    data.setup()
    known = [(what, count) for what, count in data.repairs.items() if "stand in training" in what]
    assert (
        known == [("test pairs that stand in training too (the first: line 2 of test.tsv: 'c')", 1)]
        and data.size("test") == 2
    )


def test_a_line_of_a_million_characters_is_left_out_of_training_and_refused_where_it_is_judged(
    own: Make, tmp_path: Path
) -> None:
    for name in ("text.en", "text.rev"):
        lines = (tmp_path / name).read_text().split("\n")
        lines[0] = "red " * 250_000
        (tmp_path / name).write_text("\n".join(lines))
    split = next(split for split, part in divided(Pairs([lines[0]], ["x"]))[0].items() if len(part))
    assert split == "train"
    data = own()
    data.setup()
    (note,) = data.repairs
    assert "longer than 70 tokens" in note and "line 1 of text.en: 'red red" in note and len(note) < 200
    for stem in ("train", "dev", "test"):
        (tmp_path / f"{stem}.tsv").write_text("a\tb\n" if stem != "dev" else f"a\tb\na\t{lines[0]}\n")
    with pytest.raises(UserError, match=rf"line 2 of dev\.tsv has 250001 tokens.*valid: up to {MOST}"):
        own(path=str(tmp_path), target_path=None).setup()


def test_a_trained_networks_vocabulary_counts_and_another_file_is_all_judged(
    own: Make, tmp_path: Path
) -> None:
    trained = own()
    facts = json.loads(json.dumps(trained.facts()))
    (tmp_path / "new.tsv").write_text("zebras old house\thouse old zebras\n")
    judged = own(path=str(tmp_path / "new.tsv"), target_path=None, origin=Origin(facts, None))
    judged.adopt(facts)
    assert judged.size("test") == 1 and judged.tested() == f"all of the pairs of {tmp_path / 'new.tsv'}"
    expected = trained.tokens_of(["zebras old house"])
    assert torch.equal(judged.sources_of("test", torch.tensor([0])), expected)
    # of the very files that it was trained on the tenth that it did not see
    own_files = own(origin=Origin(facts, fingerprint(trained.sources())))
    own_files.adopt(facts)
    assert own_files.pairs("test") == trained.pairs("test") and own_files.held_out
    with pytest.raises(UserError, match="in one way only"):
        own().adopt(facts)


REFUSED = [
    ({"kind": "stream"}, "is of kind translation"),
    ({"limit": 0}, "at least 1 pair"),
    ({"batch_size": 69}, "dataset.batch_size=69: give at least longest=70 tokens"),
    ({"vocabulary": 4}, "dataset.vocabulary=4"),
    ({"level": "letter"}, "valid: bpe, word, character"),
    ({"bleu": "14a"}, "valid: 13a, intl"),
    ({"longest": 1}, "dataset.longest=1"),
    ({"path": ""}, "dataset.path="),
    ({"languages": ["en"]}, "two languages"),
    ({"path": "/", "target_path": "a.de"}, "dataset.target_path=a.de: dataset.path=/ is a folder"),
    ({"path": "/nonexistent/a.tsv", "target_path": None}, "dataset.path=/nonexistent/a.tsv"),
]


@pytest.mark.parametrize(("keys", "words"), REFUSED)
def test_what_is_out_of_range_is_refused_in_one_line(own: Make, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        own(**keys).setup()
    assert words in str(error.value) and "\n" not in str(error.value)


def test_files_of_a_downloaded_set_are_asked_for_by_name_and_counted(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        make("iwslt15_en_vi").setup()
    assert "train.en" in str(error.value) and "dataset=messages" in str(error.value)
    folder = tmp_path / "wmt14_en_de"
    folder.mkdir()
    for stem, count in {"train": 50, "newstest2013": 3_000, "newstest2014": 20}.items():
        for language in ("en", "de"):
            (folder / f"{stem}.{language}").write_text("".join(f"ein {n}\n" for n in range(count)))
    data = make("wmt14_en_de", level="word")
    data.setup()
    assert [data.size(split) for split in ("train", "validation", "test")] == [50, 3_000, 20]
    (folder / "newstest2013.de").write_text("ein 1\n")
    with pytest.raises(UserError, match="1 lines instead of 3000"):
        make("wmt14_en_de", level="word").setup()


# --- messages of installed software -----------------------------------------------------------------------


@pytest.fixture
def messages(make: Make, tmp_path: Path) -> Make:
    """`messages` in German below a folder with a .po and a .mo file, 150 messages in each, 100 in both."""
    polib = pytest.importorskip("polib", reason="pip install -e '.[translation]'")
    folder = tmp_path / "locale" / "de" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    for name, numbers in {"one.mo": range(150), "two.po": range(50, 200)}.items():
        file = polib.POFile()
        file.metadata = {"Content-Type": "text/plain; charset=utf-8"}
        file.extend(polib.POEntry(msgid=f"Open file {n}.", msgstr=f"Datei {n} öffnen.") for n in numbers)
        if name.endswith(".po"):
            file.append(polib.POEntry(msgid="unsure", msgstr="unsicher", flags=["fuzzy"]))
            file.append(polib.POEntry(msgid="the same", msgstr="the same"))
            file.append(polib.POEntry(msgid="not yet", msgstr=""))
            file.append(polib.POEntry(msgid="%s", msgstr="%s!"))
            plural = {0: "%d Datei", 1: "%d Dateien"}
            file.append(polib.POEntry(msgid="%d file", msgid_plural="%d files", msgstr_plural=plural))
            file.save(str(folder / name))
        else:
            file.save_as_mofile(str(folder / name))
    (folder / "three.mo").write_bytes(b"no messages")
    return lambda **keys: make("messages", **{"path": str(tmp_path / "locale"), "level": "word", **keys})


def test_messages_are_read_once_without_what_is_not_translated(messages: Make) -> None:
    data = messages()
    data.setup()
    found = [data.pairs(split) for split in ("train", "validation", "test")]
    sources = [line for part in found for line in part.sources]
    assert sorted(sources) == sorted([*(f"Open file {n}." for n in range(200)), "%d file"])
    targets = dict(zip(sources, (line for part in found for line in part.targets), strict=True))
    assert targets["%d file"] == "%d Datei" and targets["Open file 7."] == "Datei 7 öffnen."
    assert any("three.mo" in note for note in data.repairs)
    assert set(data.sources()) == {f"de/LC_MESSAGES/{name}" for name in ("one.mo", "two.po", "three.mo")}


def test_a_language_without_messages_is_refused_in_one_line(messages: Make) -> None:
    with pytest.raises(UserError) as error:
        messages(language="vi").setup()
    assert "dataset.language=vi: 0 translated messages" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="give a language"):
        messages(language="../de")
