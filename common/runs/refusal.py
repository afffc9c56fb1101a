"""What is refused by its words alone, before Hydra or torch are imported."""

from common.base.errors import UserError
from common.runs import catalogue, own
from common.runs.objective import check_search
from common.runs.plugins import check_plugins
from common.tables.tables import papers


def check_words(words: list[str]) -> None:
    """Refuse what has no chance: no paper at all, an unknown choice of a config group, an unknown entry.

    Raises:
        UserError: with the nearest names.
    """
    given = dict(word.lstrip("+").split("=", 1) for word in words if "=" in word and word[0] not in "-~")
    if not {"paper", "entry", "--config-name"} & set(given) and "--info" not in words:
        raise UserError(f"name a paper (paper=spider; valid: {', '.join(papers())}) or an entry (entry=...)")
    catalogue.check_choices(words)
    check_plugins(words)
    check_search(given)
    own.named(given.get("import", "").strip("'"))
    catalogue.wanted_entries(words)
