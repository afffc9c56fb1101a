"""What is refused by its words alone, before Hydra or torch are imported."""

import difflib
import shlex
from collections.abc import Collection

from common.base.errors import UserError
from common.runs import catalogue, own
from common.runs.evidence import key_of, neutral, values_of
from common.runs.objective import check_search
from common.runs.plugins import check_plugins
from common.runs.words import text_of
from common.tables.tables import papers

# keys whose values are words of another run
NAMES_A_RUN = ("teacher", "start")
# quotes that text processors put in the place of ' and "
TYPOGRAPHIC = "“”„‘’‚«»"


def check_words(words: list[str]) -> None:
    """Refuse what has no chance: no paper at all, an unknown choice of a config group, an unknown entry.

    Raises:
        UserError: with the nearest names.
    """
    _check_signs(words)
    given = dict(word.lstrip("+").split("=", 1) for word in words if "=" in word and word[0] not in "-~")
    if not {"paper", "entry", "--config-name"} & set(given) and "--info" not in words:
        raise UserError(f"name a paper (paper=spider; valid: {', '.join(papers())}) or an entry (entry=...)")
    catalogue.check_choices(words)
    check_plugins(words)
    check_search(given)
    own.named(given.get("import"))
    catalogue.wanted_entries(words)
    for word in words:
        if key_of(word).rpartition(".")[2] in NAMES_A_RUN:
            _check_named_run(word)


def _check_named_run(word: str) -> None:
    """Refuse a run that a word names by others, as a teacher, where these choose what is not there.

    Raises:
        UserError: the choice or the entry.
    """
    inner = text_of(word.partition("=")[2]) or ""
    try:
        words = shlex.split(inner) if "=" in inner else []
    except ValueError:
        return
    try:
        catalogue.check_choices(words)
        catalogue.wanted_entries(words)
    except UserError as error:
        raise UserError(f"{key_of(word)}={inner}: {error}") from error


def check_passed_on(words: list[str], fixed: str, valid: str, besides: Collection[str] = ()) -> None:
    """Refuse words that a command may not pass on to runs whose own words are fixed, or that mean nothing.

    Args:
        words: of the command line, as key=value.
        fixed: what fixes the runs, for the message.
        valid: what may be said.
        besides: keys that change no result, and may not be said all the same.

    Raises:
        UserError: the first wrong word.
    """
    _check_signs(words)
    for word in words:
        if not neutral(word) or key_of(word) in besides:
            raise UserError(f"{word}: {fixed} (valid: {valid})")
        if word.endswith("="):
            raise UserError(f"{word} has no value")
    catalogue.check_choices(words)
    check_plugins(words)
    for key in ("force", "record"):
        is_asked(key, words)


def is_asked(key: str, words: list[str]) -> bool:
    """Whether words say `key=true`; the last one counts.

    Raises:
        UserError: they say neither true nor false.
    """
    said = values_of(words).get(key, "false").lower()
    if said not in ("true", "false"):
        raise UserError(f"{key}={said}; valid: true, false")
    return said == "true"


def refuse_near(words: list[str], own: list[str], strange: bool = True) -> None:
    """Refuse what is no word of a run, unless it is nearer to one than to the words of a command.

    Args:
        words: of the command line, but for the command's own.
        own: the keys of these.
        strange: whether to refuse what is near to nothing, too; else it is left to who reads a run's words.

    Raises:
        UserError: with the word that is meant.
    """
    from common.runs.check import BUILT, OPTIONAL, REFERRED_TO, TOP_LEVEL

    of_a_run = [*TOP_LEVEL, *BUILT, *OPTIONAL, *REFERRED_TO, "entry", "inner"]
    for word in words:
        key, equals, value = word.lstrip("-+~").partition("=")
        if not equals or key in of_a_run or set("./@") & set(key):
            continue
        near = difflib.get_close_matches(key, [*own, *of_a_run], n=1, cutoff=0.5 if strange else 0.6)
        if near[0] in own if near else strange:
            meant = f"; did you mean {near[0]}={value}?" if near else ""
            raise UserError(f"unknown word {word}{meant} (valid: {', '.join(own)}, and the words of the run)")


def _check_signs(words: list[str]) -> None:
    """Refuse what a shell or a text processor makes of a command.

    Raises:
        UserError: spaces around =, or typographic quotes, with the words that were meant.
    """
    for number, word in enumerate(words):
        if word == "=" or word.startswith("="):
            before, after = words[max(0, number - 1)], words[number + 1 : number + 2] if word == "=" else []
            meant = f"{before}{word}{''.join(after)}" if number else "key=value"
            raise UserError(f"a space stands before {word} (valid: {meant}, without spaces around =)")
        value = word.partition("=")[2].strip("'\"")
        found = next(
            (sign for sign in (word[:1], value[:1], value[-1:]) if sign and sign in TYPOGRAPHIC), None
        )
        if found is not None:
            raise UserError(
                f"{word}: {found} is a typographic quote, which a shell does not know (valid: ' or \")"
            )
