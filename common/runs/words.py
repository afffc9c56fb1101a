"""The words of a command line, as Hydra's grammar wants them."""

import re
from collections.abc import Iterable
from pathlib import Path

# a value that is itself made of overrides, as in teacher=model=resnet56 method=distillation/none
# inner=distillation/kd: the method within the method, in Hydra's words method@method.inner=distillation/kd
INNER = re.compile(r"inner((?:\.inner)*)=(?P<choice>.*)", re.DOTALL)
NESTED = re.compile(r"(?P<key>[^=]+)=(?P<value>[\w./@]+=.*)", re.DOTALL)

# what Hydra's grammar has a meaning for, and leaves as it is
CALL = re.compile(
    r"(bool|choice|extend_list|float|glob|int|interval|json_str|range|shuffle|sort|str|tag)\(.*\)", re.DOTALL
)
ESCAPED = re.compile(r"\\[\\()\[\]{}:=,\s'\"]")
# of a value without quotes, in that grammar; and the commas between several, which stand in no brackets
PLAIN = re.compile(r"[\w/\-\\+.$%*@?|:\s]*", re.ASCII)
IN_QUOTES = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
BETWEEN = re.compile(r",(?![^()]*\))")

MULTIRUN = ("-m", "--multirun")

# words that go without saying beside others, where none says otherwise: a search over runs knows nothing of
# what it maximises, which the paper's own method does
UNSAID = {("paper=maxacq", "dataset=runs"): "method=search/practical"}


# choices whose config leaves the target to the command line; naming a target alone means the first
OPEN = {
    "model": ("own",),
    "method": ("optimizer/any", "distillation/own"),
    "method/optimizer": ("any",),
}


def quoted(words: Iterable[str]) -> list[str]:
    """The words, with quotes around values that are override strings: a shell takes those away.

    The short form of an inner method is written out: `inner=distillation/kd`, and `inner.inner=...` of the
    one within that. What classes of the user's own need is added, see `completed`.
    """
    return [_quoted(_written_out(word)) for word in completed(list(words))]


def completed(words: list[str]) -> list[str]:
    """The words, with what goes without saying (`UNSAID`), as where one names a class of no config.

    `model._target_=my_nets.Net` without a `model=` means `model=own`, so that no key of the paper's own model
    is left over; `method._target_=torch.optim.RAdam` without a `method=` means `method=optimizer/any`. Keys
    of such a choice are new ones (`++method.lr=1e-3`), since its config holds nothing but the target.
    """
    words = list(words)
    for group, choices in OPEN.items():
        chosen = [word.split("=", 1)[1] for word in words if word.startswith(f"{group}=")]
        if not chosen and any(_foreign(word, group) for word in words):
            chosen = [choices[0]]
            words.insert(0, f"{group}={choices[0]}")
        if chosen and chosen[-1] in choices:
            path = f"{group.replace('/', '.')}."
            words = [f"++{word}" if word.startswith(path) else word for word in words]
    for beside, word in UNSAID.items():
        if set(beside) <= set(words) and not any(w.startswith(f"{word.split('=')[0]}=") for w in words):
            words.append(word)
    return words


def _foreign(word: str, group: str) -> bool:
    """Whether a word gives a group a target that is not of this project."""
    key, _, target = word.lstrip("+").partition("=")
    return key == f"{group}._target_" and not target.startswith(("common.", "papers."))


def _written_out(word: str) -> str:
    match = INNER.fullmatch(word)
    if match is None:
        return word
    # the config's defaults have a place for the first one alone
    added = "+" if match[1] else ""
    return f"{added}method@method.inner{match[1]}={match['choice']}"


def _quoted(word: str) -> str:
    if word.startswith("import="):
        # several modules are one value, and no sweep over them
        names = ",".join(modules_of(word.removeprefix("import=")))
        return f"import={names if PLAIN.fullmatch(names) else as_text(names)}"
    match = NESTED.fullmatch(word)
    if match is not None:
        return f"{match['key']}={as_text(match['value'])}"
    key, equals, value = word.partition("=")
    return f"{key}={_readable(value)}" if equals and not key.startswith("-") else word


def modules_of(value: str) -> list[str]:
    """The modules that a value of `import=` lists: separated by commas, in brackets or quotes or without."""
    parts = (part.strip().strip("'\"").strip() for part in value.strip().strip("[]'\"").split(","))
    return [part for part in parts if part]


def as_text(value: str) -> str:
    """A value in quotes, as Hydra's grammar takes any text: a backslash counts twice before a quote alone."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + (m[2] and "\\'"), value) + "'"


def text_of(value: str) -> str | None:
    """The text that a value of a word stands for, without its quotes; None for a sweep, a list or a call."""
    match = IN_QUOTES.fullmatch(value)
    if match is None:
        return None if {",", "("} & set(value) or value[:1] in ("[", "{", "'", '"') else value.strip()
    inner = match[2] if match[1] is None else match[1]
    return re.sub(r"(\\+)(?=['\"]|$)", lambda m: m[1][: len(m[1]) // 2], inner)


def texts_of(value: str) -> list[str]:
    """The texts that a value of a word lists for a sweep, or its only one; none of a list or a call."""
    if (text := text_of(value)) is not None:
        return [text]
    texts = [text_of(part.strip()) for part in BETWEEN.split(value)]
    return [text for text in texts if text is not None] if None not in texts and len(texts) > 1 else []


def _readable(value: str) -> str:
    """A value, in quotes where Hydra's grammar has no place for what names of files and columns may hold.

    So are `sales (1).csv` and `Umsatz €`; in a list each element by itself, and of several for a sweep each.
    `~/` is written out as the home folder.
    """
    if "${" in value or CALL.fullmatch(value) or ESCAPED.search(value):
        return value
    if value[:1] == "[" and value[-1:] == "]" and not set("'\"[]{}") & set(value[1:-1]):
        return f"[{_each(value[1:-1])}]"
    return value if value[:1] in ("'", '"', "[", "{") else _each(value)


def _each(values: str) -> str:
    parts = BETWEEN.split(values)
    if any(CALL.fullmatch(part.strip()) or part.strip()[:1] in ("'", '"') for part in parts):
        return values
    return ",".join(part if PLAIN.fullmatch(part) else as_text(_at_home(part.strip())) for part in parts)


def _at_home(text: str) -> str:
    """A path in the home folder, as a shell writes it out that sees it at the beginning of a word."""
    return str(Path(text).expanduser()) if text.startswith("~/") else text
