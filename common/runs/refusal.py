"""What is refused by its words alone, before Hydra or torch are imported."""

from common.base.errors import UserError
from common.runs import catalogue, own
from common.runs.objective import check_search
from common.runs.plugins import check_plugins
from common.tables.tables import papers

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
    own.named(given.get("import", "").strip("'"))
    catalogue.wanted_entries(words)


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
