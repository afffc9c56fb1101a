"""Architectures as sequences of tokens, and which token may stand where.

Token 0 starts a sequence and stands nowhere else. What is allowed at a position depends on the position, and
where an operation is split in two tokens on the token before.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic

import torch
from torch import Tensor

from common.architectures.space import A
from common.base.errors import UserError
from papers.nao.cell import INPUTS, Branch, Cell, ConvArchitecture, Node, branch_tokens
from papers.nao.operations import BY_TOKENS, FIRST_KERNEL, FIRST_TYPE, KERNELS, TOKENS, TYPES, Operation
from papers.nao.recurrent_cell import ACTIVATIONS, RecurrentCell, Step

START = 0


class Grammar(ABC, Generic[A]):
    """A language whose sentences are the architectures of a space, all of one length.

    Attributes:
        vocabulary: V, how many tokens there are, with `START`.
        length: T, tokens of a sentence.
        branch: how many tokens say one choice of a source and of what is done with it.
        allowed: bool [T, V, V]: whether at a position, after a token (`START` at the first), a token may
            stand.
    """

    vocabulary: int
    length: int
    branch: int
    allowed: Tensor

    @abstractmethod
    def encode(self, architecture: A) -> list[int]:
        """The tokens of an architecture."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> A:
        """The architecture of T tokens.

        Raises:
            UserError: they are no sentence; the first wrong position is named.
        """

    def swapped(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Other sentences for the architectures of int64 [n, T]; the same where there are none."""
        return tokens

    def check(self, tokens: Sequence[int]) -> None:
        """Refuse what is no sentence.

        Raises:
            UserError: see above; the first wrong position is named.
        """
        if len(tokens) != self.length:
            raise UserError(f"{len(tokens)} tokens; valid: {self.length}")
        before = START
        for position, token in enumerate(tokens):
            allowed = self.allowed[position, before].nonzero().flatten().tolist()
            if token not in allowed:
                raise UserError(f"position {position}: token {token}; valid: {', '.join(map(str, allowed))}")
            before = token

    def tensor(self, architectures: Sequence[A]) -> Tensor:
        """The tokens of several architectures, int64 [n, T]."""
        return torch.tensor([self.encode(one) for one in architectures]).view(-1, self.length)


class _CellGrammar(Grammar[ConvArchitecture]):
    """What both languages of convolutional cells share: branch by branch, node by node, cell by cell."""

    def __init__(self, nodes: int, operations: tuple[str, ...], one_cell: bool) -> None:
        self.nodes, self.operations, self.one_cell = nodes, operations, one_cell
        self.cells = 1 if one_cell else 2
        self.length = self.cells * nodes * 2 * self.branch

    def encode(self, architecture: ConvArchitecture) -> list[int]:
        chosen = (architecture.normal, architecture.reduction)[: self.cells]
        return [
            token for cell in chosen for node in cell for branch in node for token in self._tokens(branch)
        ]

    def decode(self, tokens: Sequence[int]) -> ConvArchitecture:
        self.check(tokens)
        found = [self._branch(tokens[at : at + self.branch]) for at in range(0, self.length, self.branch)]
        nodes = [Node(*found[at : at + 2]) for at in range(0, len(found), 2)]
        cells: list[Cell] = [tuple(nodes[at : at + self.nodes]) for at in range(0, len(nodes), self.nodes)]
        return ConvArchitecture(cells[0], cells[-1])

    def swapped(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """The branches of one node of each cell exchanged, drawn anew for each sentence."""
        parts = tokens.view(len(tokens), self.cells, self.nodes, 2, self.branch)
        chosen = torch.randint(self.nodes, (len(tokens), self.cells, 1), generator=generator)
        mask = (torch.arange(self.nodes) == chosen)[..., None, None]
        return torch.where(mask, parts.flip(3), parts).view_as(tokens)

    def _sources(self) -> list[range]:
        """The tokens of sources, by branch."""
        per_cell = [range(1, 1 + INPUTS + node) for node in range(self.nodes) for _ in range(2)]
        return per_cell * self.cells

    @abstractmethod
    def _tokens(self, branch: Branch) -> Sequence[int]: ...

    @abstractmethod
    def _branch(self, tokens: Sequence[int]) -> Branch: ...


class PairGrammar(_CellGrammar):
    """A source and an operation for each branch, as in the codes with shared weights.

    Tokens: 1 to B + 1 the sources, then the operations in their order: with five nodes and five operations 12
    tokens, 40 a sentence.

    Args:
        nodes: B.
        operations: of the space.
        one_cell: both cells of a network are the same, and stand once.
    """

    branch = 2

    def __init__(self, nodes: int, operations: tuple[str, ...], one_cell: bool = False) -> None:
        super().__init__(nodes, operations, one_cell)
        self.first = nodes + INPUTS
        self.vocabulary = self.first + len(operations)
        self.allowed = torch.zeros(self.length, self.vocabulary, self.vocabulary, dtype=torch.bool)
        for number, sources in enumerate(self._sources()):
            self.allowed[2 * number, :, sources.start : sources.stop] = True
            self.allowed[2 * number + 1, :, self.first :] = True

    def _tokens(self, branch: Branch) -> Sequence[int]:
        return branch.source + 1, self.first + self.operations.index(branch.operation)

    def _branch(self, tokens: Sequence[int]) -> Branch:
        return Branch(tokens[0] - 1, self.operations[tokens[1] - self.first])


class SplitGrammar(_CellGrammar):
    """A source, a type and a kernel for each branch, as in the first official code: 21 tokens, 60 a sentence.

    Args:
        nodes, operations, one_cell: see `PairGrammar`.

    Raises:
        UserError: more nodes than there are tokens for, or an operation that has none.
    """

    branch = 3

    def __init__(self, nodes: int, operations: tuple[str, ...], one_cell: bool = False) -> None:
        if nodes > FIRST_TYPE - INPUTS:
            raise UserError(f"method.nodes={nodes}; valid: up to {FIRST_TYPE - INPUTS} with split operations")
        missing = [name for name in operations if name not in BY_TOKENS.values()]
        if missing:
            raise UserError(f"method.tokens=split has none for {missing[0]} (valid: pairs)")
        super().__init__(nodes, operations, one_cell)
        self.vocabulary = TOKENS
        self.allowed = torch.zeros(self.length, TOKENS, TOKENS, dtype=torch.bool)
        pairs = [branch_tokens(Branch(0, name))[1:] for name in operations]
        for number, sources in enumerate(self._sources()):
            self.allowed[3 * number, :, sources.start : sources.stop] = True
            for kind, kernel in pairs:
                self.allowed[3 * number + 1, :, kind] = True
                self.allowed[3 * number + 2, kind, kernel] = True

    def _tokens(self, branch: Branch) -> Sequence[int]:
        return branch_tokens(branch)

    def _branch(self, tokens: Sequence[int]) -> Branch:
        source, kind, kernel = tokens
        pair = Operation(TYPES[kind - FIRST_TYPE], KERNELS[kernel - FIRST_KERNEL])
        return Branch(source - 1, BY_TOKENS[pair])


class RecurrentGrammar(Grammar[RecurrentCell]):
    """A source and an activation for each step: with eleven steps 16 tokens, 22 a sentence.

    Tokens: 1 to n the sources, then the activations in their order.

    Args:
        steps: n.
    """

    branch = 2

    def __init__(self, steps: int) -> None:
        self.steps, self.first = steps, steps + 1
        self.length, self.vocabulary = 2 * steps, self.first + len(ACTIVATIONS)
        self.allowed = torch.zeros(self.length, self.vocabulary, self.vocabulary, dtype=torch.bool)
        for number in range(steps):
            self.allowed[2 * number, :, 1 : number + 2] = True
            self.allowed[2 * number + 1, :, self.first :] = True

    def encode(self, architecture: RecurrentCell) -> list[int]:
        pairs = (
            (step.source + 1, self.first + ACTIVATIONS.index(step.activation)) for step in architecture.steps
        )
        return [token for pair in pairs for token in pair]

    def decode(self, tokens: Sequence[int]) -> RecurrentCell:
        self.check(tokens)
        pairs = zip(tokens[::2], tokens[1::2], strict=True)
        return RecurrentCell(tuple(Step(source - 1, ACTIVATIONS[act - self.first]) for source, act in pairs))
