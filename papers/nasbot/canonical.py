"""A canonical text of a labelled directed acyclic graph: equal for graphs that differ by numbering alone."""

from collections.abc import Sequence

# of orders that are tried where layers cannot be told apart; beyond it one of them stands for all
MOST_ORDERS = 256


def canonical_form(
    words: Sequence[str], parents: Sequence[Sequence[int]], children: Sequence[Sequence[int]]
) -> tuple[str, list[int]]:
    """The smallest of the texts that a graph has in the orders which its structure leaves open; that order.

    Colour refinement tells nodes apart by their word and, in turns, by the colours of their parents and
    children. Where several nodes keep one colour, each of them is singled out in turn and the rest refined
    again (McKay's individualisation); nodes with the same parents and children are alike, and one is enough.
    Two graphs never share a text unless they are the same; the same graph has one text, except for more than
    `MOST_ORDERS` open orders of nodes that are not exchangeable, which refinement leaves in practice only
    where any of them will do.

    Args:
        words: what each node is.
        parents, children: of each node the numbers of others.
    """
    names = sorted(set(words))
    colours = [names.index(word) for word in words]
    best: list[tuple[str, list[int]]] = []
    budget = [MOST_ORDERS]
    _descend(_refined(colours, parents, children), words, parents, children, best, budget)
    return best[0]


def _refined(
    colours: list[int], parents: Sequence[Sequence[int]], children: Sequence[Sequence[int]]
) -> list[int]:
    """Colours that no further look at neighbours splits; their order does not depend on the numbering."""
    count = len(set(colours))
    while True:
        marks = [
            (colours[n], *(tuple(sorted(colours[m] for m in near[n])) for near in (parents, children)))
            for n in range(len(colours))
        ]
        place = {mark: number for number, mark in enumerate(sorted(set(marks)))}
        colours = [place[mark] for mark in marks]
        if len(place) == count:
            return colours
        count = len(place)


def _descend(
    colours: list[int],
    words: Sequence[str],
    parents: Sequence[Sequence[int]],
    children: Sequence[Sequence[int]],
    best: list[tuple[str, list[int]]],
    budget: list[int],
) -> None:
    cells: dict[int, list[int]] = {}
    for node, colour in enumerate(colours):
        cells.setdefault(colour, []).append(node)
    several = sorted(colour for colour, nodes in cells.items() if len(nodes) > 1)
    if not several:
        order = sorted(range(len(colours)), key=lambda node: colours[node])
        text = _text(order, words, parents)
        budget[0] -= 1
        if not best or text < best[0][0]:
            best[:] = [(text, order)]
        return
    nodes = cells[several[0]]
    around = {(tuple(sorted(parents[n])), tuple(sorted(children[n]))): n for n in reversed(nodes)}
    for node in around.values():
        if budget[0] <= 0 and best:
            return
        # twice the colours leave room for one between two
        single = [2 * colour for colour in colours]
        single[node] -= 1
        _descend(_refined(single, parents, children), words, parents, children, best, budget)


def _text(order: Sequence[int], words: Sequence[str], parents: Sequence[Sequence[int]]) -> str:
    place = {node: number for number, node in enumerate(order)}
    return " ".join(
        f"{words[node]}<{','.join(str(number) for number in sorted(place[p] for p in parents[node]))}"
        for node in order
    )
