"""What a search over runs may vary: `key=log(1e-4,1)` and other forms.

key=float(low,high)          any number between
key=log(low,high)            the same, in logarithms
key=int(low,high)            whole numbers, both ends among them
key=logint(low,high)         the same, in logarithms
key=choice(a,b,c)            one of them, in no order
key=... if other=a           a key that exists only where the choice `other` is a
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.base.errors import UserError

FORMS = "float(low,high), log(low,high), int(low,high), logint(low,high) or choice(a,b,...)"
SETTING = re.compile(
    r"(?P<key>[\w./@+~-]+)=(?P<form>float|log|int|logint|choice)\((?P<inner>.*)\)(?P<condition>\s+if\s+.*)?",
    re.DOTALL,
)
CONDITION = re.compile(r"\s+if\s+(?P<key>[^=\s]+)=(?P<value>.*\S)\s*", re.DOTALL)
# a whole number of more values is searched as any number is
MANY = 10**4


@dataclass(frozen=True)
class Setting:
    """One key that varies.

    Attributes:
        key: of the runs' config.
        form: float, log, int, logint or choice.
        low, high: of numbers.
        choices: of a choice, its values as words.
        only_if: a key of a choice that stands before, and the value that it must have; None: always there.
    """

    key: str
    form: str
    low: float
    high: float
    choices: tuple[str, ...]
    only_if: tuple[str, str] | None

    @property
    def levels(self) -> int | None:
        """The number of values; None where any number will do."""
        if self.form == "choice":
            return len(self.choices)
        return int(self.high) - int(self.low) + 1 if self.form in ("int", "logint") else None

    def value(self, unit: float) -> str:
        """What unit in [0, 1] stands for, as it is written on a command line; numbers to 6 digits."""
        if self.form == "choice":
            return self.choices[min(int(unit * len(self.choices)), len(self.choices) - 1)]
        if self.form in ("int", "logint"):
            return str(self._whole(unit))
        low, high = self.low, self.high
        value = low * (high / low) ** unit if self.form == "log" else low + unit * (high - low)
        return f"{min(max(value, low), high):.6g}"

    def units(self) -> tuple[float, ...] | None:
        """The unit of each of its values; None where any number will do, or as good as any."""
        if self.form == "choice":
            return tuple((i + 0.5) / len(self.choices) for i in range(len(self.choices)))
        levels = self.levels
        if levels is None or levels > MANY:
            return None
        found = [self.unit(str(int(self.low) + i)) for i in range(levels)]
        return tuple(unit for unit in found if unit is not None)

    def _whole(self, unit: float) -> int:
        """The whole number whose own unit is nearest; of two the larger."""
        low, high = int(self.low), int(self.high)
        if self.form == "int":
            return min(low + int(unit * (high - low + 1)), high)
        value = (low - 0.5) * ((high + 0.5) / (low - 0.5)) ** unit
        below = min(max(int(value), low), high)
        if below == high:
            return high
        one, other = self.unit(str(below)), self.unit(str(below + 1))
        assert one is not None and other is not None
        return below if unit < (one + other) / 2 else below + 1

    def unit(self, value: str) -> float | None:
        """The middle of what stands for a value; None where none does.

        It is what `value` would be asked for, up to the six digits that numbers are written with.
        """
        if self.form == "choice":
            return (self.choices.index(value) + 0.5) / len(self.choices) if value in self.choices else None
        try:
            number = float(value)
        except ValueError:
            return None
        if not self.low <= number <= self.high:
            return None
        if self.form == "int":
            return (number - self.low + 0.5) / (self.high - self.low + 1) if number.is_integer() else None
        if self.form == "logint":
            share = math.log(number / (self.low - 0.5)) / math.log((self.high + 0.5) / (self.low - 0.5))
            return share if number.is_integer() else None
        if self.form == "log":
            return math.log(number / self.low) / math.log(self.high / self.low)
        return (number - self.low) / (self.high - self.low)


def is_setting(word: str) -> bool:
    """Whether a word of a command line is one of the forms."""
    return SETTING.fullmatch(word) is not None


def refuse_other_forms(word: str) -> None:
    """Refuse a word whose value looks like a form, and is none.

    Raises:
        UserError: it does, with the forms.
    """
    if re.fullmatch(r"[^=]+=\s*\w+\(.*\)(\s+if .*)?", word, re.DOTALL) and not is_setting(word):
        raise UserError(f"{word}: valid: KEY={FORMS}, and `... if KEY=VALUE` behind it")


def setting(word: str) -> Setting:
    """A word such as `method.lr=log(1e-4,1)`.

    Raises:
        UserError: it is none of the forms, or its values are none.
    """
    match = SETTING.fullmatch(word.strip())
    if match is None:
        raise UserError(f"{word}: valid: KEY={FORMS}, and `... if KEY=VALUE` behind it")
    key, form = match["key"], match["form"]
    parts = [part.strip() for part in _split(match["inner"])]
    condition = _condition(word, match["condition"])
    if form == "choice":
        if len(set(parts)) < 2 or len(set(parts)) < len(parts) or "" in parts:
            raise UserError(f"{word}: valid: at least two choices, each once")
        return Setting(key, form, 0.0, 0.0, tuple(parts), condition)
    return Setting(key, form, *_ends(word, form, parts), (), condition)


def settings(words: Sequence[str]) -> list[Setting]:
    """All that varies, those that others depend on first.

    Raises:
        UserError: a key twice, or a condition on what is no choice among them.
    """
    found = [setting(word) for word in words]
    keys = [one.key for one in found]
    if (twice := [key for key in keys if keys.count(key) > 1]) != []:
        raise UserError(f"{twice[0]} is given {keys.count(twice[0])} times; valid: each key once")
    ordered: list[Setting] = []
    waiting = found
    while waiting:
        ready = [one for one in waiting if one.only_if is None or one.only_if[0] in [o.key for o in ordered]]
        if not ready:
            raise UserError(_no_condition(waiting[0], found))
        ordered += ready
        waiting = [one for one in waiting if one not in ready]
    for one in ordered:
        if one.only_if is not None:
            other = next(o for o in ordered if o.key == one.only_if[0])
            if one.only_if[1] not in other.choices:
                raise UserError(_no_condition(one, found))
    return ordered


def words_at(found: Sequence[Setting], units: Mapping[str, float]) -> list[str]:
    """The words of a run, by the unit of each key (1/2 where it is not named); those that exist there."""
    chosen: dict[str, str] = {}
    for one in found:
        if one.only_if is None or chosen.get(one.only_if[0]) == one.only_if[1]:
            chosen[one.key] = one.value(units.get(one.key, 0.5))
    return [f"{key}={value}" for key, value in chosen.items()]


def _split(text: str) -> list[str]:
    """At the commas that stand in no brackets and no quotes."""
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        depth += (sign in "([{") - (sign in ")]}") if not quote else 0
        if sign == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _ends(word: str, form: str, parts: list[str]) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in parts)
    except ValueError:
        raise UserError(f"{word}: valid: {form}(low,high), two numbers") from None
    whole = form in ("int", "logint")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"{word}: low={low:g}, high={high:g}; valid: low < high, both finite")
    if form in ("log", "logint") and low <= 0:
        raise UserError(f"{word}: low={low:g}; valid: low > 0 in logarithms")
    if whole and not (low.is_integer() and high.is_integer()):
        raise UserError(f"{word}: valid: whole numbers")
    return low, high


def _condition(word: str, text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    match = CONDITION.fullmatch(text)
    if match is None:
        raise UserError(f"{word}: valid: ... if KEY=VALUE, with VALUE one of KEY=choice(...)")
    return match["key"], match["value"]


def _no_condition(one: Setting, found: Sequence[Setting]) -> str:
    assert one.only_if is not None
    key, value = one.only_if
    valid = [f"{o.key}={choice}" for o in found if o is not one for choice in o.choices]
    text = ", ".join(valid) or "none, nothing is a choice"
    return f"{one.key} if {key}={value}: no such choice (valid: {text})"
