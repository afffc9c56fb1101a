"""Real sentences with translations that are on most machines: messages of installed software (gettext)."""

import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Unpack

from common.base.dataset import check
from common.base.errors import UserError
from common.data.text.parallel_text import Pairs, Splits, core, digest, divided
from common.data.text.translation_data import TranslationData, TranslationOptions

SUFFIXES = (".mo", ".po")
# what a program puts in: %s, %-5.2lf, %(name)s, {name}
PLACEHOLDER = re.compile(r"%\(\w+\)\w|%[-+#0-9.*$]*[hlLqjzt]*[a-zA-Z]|\{\w*\}")
# fewer messages are no data set
LEAST = 100


def folders() -> list[Path]:
    """Where software keeps its messages: Python's packages, then Python's and the system's own folders."""
    packages = dict.fromkeys(map(Path, (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))))
    shared = dict.fromkeys(
        Path(prefix) / "share" / "locale" for prefix in (sys.base_prefix, "/usr/local", "/usr")
    )
    return [folder for folder in (*packages, *shared) if folder.is_dir()]


class Messages(TranslationData):
    """English messages and their translations into one language, from .mo and .po files.

    Files are those of `<folder>/**/<language>/LC_MESSAGES`. A message with a plural counts in its singular.
    Left out are messages that are not translated or marked as uncertain, the same message again, and messages
    of nothing but signs and what a program puts in. What is left is divided by message
    (`common.data.text.parallel_text.divided`), so that a message that several programs have, perhaps with
    other punctuation, is in one split alone. Which software is installed decides what is found: a run keeps
    the fingerprint of the files.

    Args:
        language: of the translations, as its folder is called: de, fr, vi, pt_BR.
        path: a folder to look in; null for those of `folders`.
        The others as in `TranslationData`.

    Raises:
        UserError: in `setup`, fewer than 100 messages, or the package polib is not installed.
    """

    NAME: ClassVar = "messages"
    SUFFIXES: ClassVar = SUFFIXES

    def __init__(self, *, language: str, path: str | None, **options: Unpack[TranslationOptions]) -> None:
        check("language", language, language.isidentifier(), "give a language as de, fr, vi or pt_BR")
        self.language = language
        self.folders = folders() if path is None else [Path(path).expanduser()]
        super().__init__(**options)

    def sources(self) -> dict[str, Path]:
        """The files, named by their places in the folders."""
        found: dict[str, Path] = {}
        for folder in self.folders:
            for file in self._files(folder):
                found.setdefault(file.relative_to(folder).as_posix(), file)
        return found

    def _files(self, folder: Path) -> list[Path]:
        """Those of the language, of a .po and a .mo file of one name the latter."""
        found = [
            file for suffix in SUFFIXES for file in folder.glob(f"**/{self.language}/LC_MESSAGES/*{suffix}")
        ]
        return sorted({file.with_suffix(""): file for file in reversed(found)}.values())

    def read(self) -> Splits:
        """The messages of each split."""
        known: dict[tuple[str, str], tuple[str, str]] = {}
        damaged: list[Path] = []
        for file in self.sources().values():
            for source, target in _messages(file, damaged):
                known.setdefault((core(source), core(target)), (source, target))
        if damaged:
            self.repairs[f"files that cannot be read, left out (the first: {damaged[0]})"] = len(damaged)
        if len(known) < LEAST:
            places = ", ".join(map(str, self.folders))
            raise UserError(
                f"dataset.language={self.language}: {len(known)} translated messages below {places} (valid: "
                "a language of the software that is there; dataset.path=FOLDER with "
                "<language>/LC_MESSAGES/*.mo or *.po; pip install django brings some)"
            )
        # neither by file nor by alphabet, so that the first ones stand for all
        pairs = sorted(known.values(), key=lambda pair: (digest(pair[0])[::-1], pair))
        found, left_out = divided(Pairs([source for source, _ in pairs], [target for _, target in pairs]))
        if left_out:
            self.repairs["messages whose translation stands in a judged split too, left out"] = left_out
        return found


def _messages(path: Path, damaged: list[Path]) -> Iterator[tuple[str, str]]:
    """The translated messages of a file in their order; one that cannot be read is added to `damaged`."""
    polib = _polib()
    try:
        entries = polib.mofile(str(path)) if path.suffix == ".mo" else polib.pofile(str(path))
    except (OSError, ValueError, UnicodeDecodeError, LookupError, EOFError):
        damaged.append(path)
        return
    for entry in entries:
        target = entry.msgstr or (entry.msgstr_plural or {}).get(0, "")
        kept = "fuzzy" not in entry.flags and not entry.obsolete and entry.msgid != target
        if kept and _has_words(entry.msgid) and _has_words(target):
            yield entry.msgid, target


def _has_words(text: str) -> bool:
    return any(map(str.isalpha, PLACEHOLDER.sub("", text)))


def _polib() -> Any:
    try:
        import polib
    except ImportError as error:
        raise UserError(
            "dataset=messages reads .mo and .po files by the package polib: pip install -e '.[translation]'"
        ) from error
    return polib
