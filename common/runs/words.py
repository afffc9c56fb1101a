"""The words of a command line, as Hydra's grammar wants them."""

import re
from collections.abc import Iterable

# a value that is itself made of overrides, as in teacher=model=resnet56 method=distillation/none
# inner=distillation/kd: the method within the method, in Hydra's words method@method.inner=distillation/kd
INNER = re.compile(r"inner((?:\.inner)*)=(?P<choice>.*)", re.DOTALL)
NESTED = re.compile(r"(?P<key>[^=]+)=(?P<value>[\w./@]+=.*)", re.DOTALL)

MULTIRUN = ("-m", "--multirun")


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
    """The words, with what goes without saying where one of them names a class that no config file is about.

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
    if word.startswith("import=") and "," in word and not word.startswith(("import='", "import=[")):
        # several modules, and no sweep over them
        return f"import='{word.removeprefix('import=')}'"
    match = NESTED.fullmatch(word)
    if match is None:
        return word
    value = match["value"].replace("\\", "\\\\").replace("'", "\\'")
    return f"{match['key']}='{value}'"
