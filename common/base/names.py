"""Long names in narrow places: what they share is said once, and what is too long lacks its middle."""

import re
from collections.abc import Sequence


def fitting(names: Sequence[str], width: int) -> tuple[str, list[str]]:
    """Names in at most `width` characters each: what all begin with (""), and what stands for each.

    They are left whole where they fit. Else what they share is taken off (`apart`), and what is still too
    long lacks its middle (`shortened`).
    """
    if all(len(name) <= width for name in names):
        return "", list(names)
    common, rests = apart(names)
    return common, [shortened(rest, width) for rest in rests]


def apart(names: Sequence[str]) -> tuple[str, list[str]]:
    """What all names begin with, up to the end of a part of a name, and the rest of each, which is not empty.

    Parts end with `_`, `/`, a space, or a point that stands in no number.
    """
    first, last = min(names), max(names)
    shared = next((i for i, pair in enumerate(zip(first, last, strict=False)) if len(set(pair)) > 1), 0)
    ends = [match.end() for match in re.finditer(r"[_/ ]|(?<!\d)\.", first[:shared])]
    length = ends[-1] if ends else 0
    return first[:length], [name[length:] for name in names]


def shortened(name: str, width: int) -> str:
    """A name in at most `width` characters, its middle left out where it is longer: both ends tell more."""
    if len(name) <= width:
        return name
    if width < 3:
        return name[:width]
    head = (width - 1) // 2
    return f"{name[:head]}…{name[len(name) - (width - 1 - head) :]}"
