"""The files of the paper's 21 tasks, in small copies of their makers' formats."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from common.data.shared.download import DamagedError
from papers.transfer_automl.text_sources import SOURCES

# by task: the columns of its table, and two rows with the labels that they stand for
TABLES = {
    "airline": (["text", "airline_sentiment"], ["negative", "neutral"]),
    "corp_messaging": (["text", "category"], ["Action", "Dialogue"]),
    "disasters": (["text", "choose_one"], ["Relevant", "Not Relevant"]),
    "emotion": (["content", "sentiment"], ["anger", "worry"]),
    "global_warming": (["tweet", "existence"], ["Y", "N"]),
    "prog_opinion": (["tweet", "q2_what_is_the_sentiment_of_this_tweet"], ["positive", "negative"]),
    "economic_news": (["text", "relevance"], ["yes", "no"]),
    "us_economy": (["text", "relevance"], ["yes", "no"]),
    "political_message": (["text", "message"], ["attack", "policy"]),
    "primary_emotion": (["sentence", "emotion"], ["Trust", "Fear"]),
}
# labels that are left out
LEFT_OUT = {"disasters": "Can't Decide", "global_warming": "N/A", "economic_news": "not sure"}


def zipped(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name, text in members.items():
            packed.writestr(name, text)
    return path


def tarred(path: Path, members: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            packed.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize("name", list(TABLES))
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_table_gives_the_texts_that_are_labelled(name: str, encoding: str, tmp_path: Path) -> None:
    (text, label), (first, second) = TABLES[name]
    rows = [
        f"id,{text},{label},more",
        f'1,"Café, at last",{first},x',
        f"2,no,{second},y",
        f"3,,{first},z",
        "4,none,,z",
    ]
    rows += [f"5,left out,{LEFT_OUT[name]},z"] if name in LEFT_OUT else []
    path = tmp_path / SOURCES[name].file
    path.write_bytes("\n".join(rows).encode(encoding))
    assert SOURCES[name].read(path) == [("Café, at last", first), ("no", second)]


def test_lines_begin_with_their_label(tmp_path: Path) -> None:
    for name in ("customer_reviews", "subj_movie"):
        path = tmp_path / SOURCES[name].file
        path.write_bytes("1 a fine day\n0 na\xefve at best\n".encode("latin-1"))
        assert SOURCES[name].read(path) == [("a fine day", "1"), ("na\xefve at best", "0")]


def test_opinions_stand_in_two_files(tmp_path: Path) -> None:
    path = tmp_path / SOURCES["mpqa_opinion"].file
    path.write_text("agree\n")
    path.with_suffix(".neg").write_text("refuse\n\n")
    assert SOURCES["mpqa_opinion"].read(path) == [("agree", "pos"), ("refuse", "neg")]


def test_newsgroups_are_the_folders_of_their_archive(tmp_path: Path) -> None:
    path = tarred(
        tmp_path / "a.tar.gz", {"20news-bydate-train/sci.med/1": "one", "20news-bydate-test/alt.x/2": "two"}
    )
    assert SOURCES["20_newsgroups"].read(path) == [("one", "sci.med"), ("two", "alt.x")]


def test_films_are_labelled_by_their_folders(tmp_path: Path) -> None:
    members = {
        "aclImdb/train/pos/1_9.txt": "good",
        "aclImdb/test/neg/2_1.txt": "bad",
        "aclImdb/train/unsup/3.txt": "?",
    }
    path = tarred(tmp_path / "a.tar.gz", members)
    assert SOURCES["sentiment_imdb"].read(path) == [("good", "pos"), ("bad", "neg")]


def test_brown_loses_its_tags(tmp_path: Path) -> None:
    members = {
        "brown/cats.txt": "ca01 news\ncb02 hobbies\n",
        "brown/ca01": "The/at and/or/cc ,/,\n",
        "brown/cb02": "knit/vb",
    }
    path = zipped(tmp_path / "a.zip", members)
    assert SOURCES["brown_corpus"].read(path) == [("The and/or ,", "news"), ("knit", "hobbies")]


def test_tables_within_archives(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"SMSSpamCollection": "ham\tsee you\nspam\tWIN now\n", "readme": "x"})
    assert SOURCES["sms_spam"].read(path) == [("see you", "ham"), ("WIN now", "spam")]
    path = zipped(
        tmp_path / "b.zip", {"newsCorpora.csv": "1\tFed rises\turl\tpub\tb\tst\thost\t9\n2\tshort\n"}
    )
    assert SOURCES["news_aggregator"].read(path) == [("Fed rises", "b")]
    path = zipped(tmp_path / "c.zip", {"SST-2/train.tsv": "sentence\tlabel\nfine film \t1\n"})
    assert SOURCES["sentiment_sst"].read(path) == [("fine film ", "1")]
    text = "Issue,Consumer complaint narrative\nLoans,they took it\nLoans,\n,nothing\n"
    path = zipped(tmp_path / "d.zip", {"complaints.csv": text})
    assert SOURCES["complaints"].read(path) == [("they took it", "Loans")]


def test_reviews_of_three_stars_and_those_that_are_no_xml_are_left_out(tmp_path: Path) -> None:
    stars = {"a.xml": 1, "b.xml": 3, "c.xml": 5}
    members = {name: f'<review rank="{n}"><body>n{n}</body></review>' for name, n in stars.items()}
    path = zipped(tmp_path / "a.zip", {**members, "d.xml": "<review rank=1>&broken"})
    assert SOURCES["sentiment_cine"].read(path) == [("n1", "neg"), ("n5", "pos")]


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_file_of_something_else_is_damaged_or_has_no_text(name: str, tmp_path: Path) -> None:
    path = tmp_path / SOURCES[name].file
    path.write_bytes(b"<html>not found</html>")
    path.with_suffix(".neg").write_bytes(b"")
    try:
        rows = SOURCES[name].read(path)
    except DamagedError:
        return
    assert len({label for _, label in rows}) < 2
