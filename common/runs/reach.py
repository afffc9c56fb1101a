"""Which definitions of this project a name reaches, and a hash over what they say.

A definition is a function, a class or an assignment of a module. It reaches those that its text names, in its
own module or through imports, and so on. Where the text does not tell, more is taken than may be needed:

- statements of a module that do something else when it is imported (calls, loops, assignments to attributes,
  decorators that are not known to be harmless) count as soon as the module is imported by one that counts;
- a module that is handed on as an object, that lacks the name that is asked of it, or in which what is
  reached calls `globals`, `eval` or `exec`, counts whole, and so does one that is imported by `*`;
- where subclasses are found by their base (`__subclasses__`, `__init_subclass__`), all modules count that are
  imported.

Beside this project's packages those of the user count, which are neither Python's nor installed.

The hash is of syntax trees, without comments, docstrings and annotations, and without names of files: what is
moved to another module is the same.
"""

import ast
import hashlib
import importlib.util
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from common.runs import own

# packages of this project
OURS = ("common", "papers")
# decorators that leave nothing behind but the definition
HARMLESS = {
    *("dataclass", "dataclasses.dataclass", "cache", "functools.cache", "lru_cache", "functools.lru_cache"),
    *("contextmanager", "contextlib.contextmanager", "total_ordering", "runtime_checkable", "overload"),
    *("wraps", "functools.wraps", "torch.no_grad", "torch.inference_mode", "final", "torch.enable_grad"),
}
# parts of a definition that change nothing of what it does, by the field of the syntax tree
SILENT = {"ctx", "returns", "annotation", "type_comment", "type_params", "type_ignores", "simple", "kind"}
# annotations that say what an assignment of a class is, and not only of which type
TELLING = {"ClassVar", "InitVar", "KW_ONLY"}
LOOKUPS = {"globals", "eval", "exec"}
SUBCLASSES = {"__subclasses__", "__init_subclass__"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# of a module's whole content
WHOLE = "*"


class Tree(NamedTuple):
    """What a piece of a module says: a hash, the dotted names in it, and what imports inside it bind."""

    digest: str
    names: frozenset[str]
    imports: dict[str, list[str]]


class Reader:
    """Writes syntax trees down, in a form that does not depend on the version of Python."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.parts: list[str] = []
        self.names: set[str] = set()
        self.imports: dict[str, list[str]] = {}
        # whether an annotation may make a field of a class
        self.fields = False

    def tree(self, nodes: Iterable[ast.stmt]) -> Tree:
        """Several statements as one tree."""
        self._list(nodes)
        digest = hashlib.sha256("\x00".join(self.parts).encode()).hexdigest()
        return Tree(digest, frozenset(self.names), self.imports)

    def _list(self, nodes: Iterable[ast.AST]) -> None:
        self.parts.append("[")
        for node in nodes:
            if not self._is_silent(node):
                self._node(node)
        self.parts.append("]")

    def _is_silent(self, node: ast.AST) -> bool:
        """Docstrings and other bare constants, and declarations that make no field."""
        if isinstance(node, ast.Expr):
            return isinstance(node.value, ast.Constant)
        return isinstance(node, ast.AnnAssign) and node.value is None and not self.fields

    def _node(self, node: ast.AST) -> None:
        if isinstance(node, ast.Name):
            self._name(node.id)
        elif isinstance(node, ast.Attribute) and (dotted := dotted_name(node)):
            self._name(dotted)
        elif isinstance(node, ast.Constant):
            self.parts.append(repr(node.value))
            if isinstance(node.value, str) and node.value.startswith(tuple(f"{name}." for name in OURS)):
                self.names.add(node.value)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node)
        else:
            self._any(node)

    def _name(self, dotted: str) -> None:
        self.names.add(dotted)
        self.parts.append(dotted)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.parts.append("import")
        for bound, target in imported(node, self.package):
            self.imports.setdefault(bound, []).append(target)
            # of ours the definitions count, wherever they stand
            self.parts.append(bound if is_ours(target) else f"{bound} {target}")

    def _any(self, node: ast.AST) -> None:
        if isinstance(node, ast.AnnAssign) and node.value is not None and not self.fields:
            node = ast.Assign(targets=[node.target], value=node.value)
        self.parts.append(type(node).__name__)
        outside = self.fields
        if isinstance(node, (*FUNCTIONS, ast.Lambda, ast.ClassDef)):
            self.fields = isinstance(node, ast.ClassDef)
        if isinstance(node, ast.AnnAssign) and (telling := _outermost(node.annotation)) in TELLING:
            self.parts.append(telling)
        for name in node._fields:
            value = getattr(node, name, None)
            # fields that are empty differ between versions of Python
            if value is None or value == [] or name in SILENT:
                continue
            self.parts.append(name)
            if isinstance(value, list):
                self._values(value)
            elif isinstance(value, ast.AST):
                self._node(value)
            else:
                self.parts.append(repr(value))
        self.fields = outside

    def _values(self, values: list[ast.AST | str | None]) -> None:
        if all(isinstance(value, ast.AST) for value in values):
            self._list(value for value in values if isinstance(value, ast.AST))
            return
        # names of `global`, and keys of a dictionary of which some are unpacked
        for value in values:
            self._node(value) if isinstance(value, ast.AST) else self.parts.append(repr(value))


def dotted_name(node: ast.AST) -> str | None:
    """`a.b.c` of such a node, None of any other."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _outermost(annotation: ast.AST) -> str:
    """`ClassVar` of `ClassVar[int]`, also in quotes or with its module before it."""
    if isinstance(annotation, ast.Subscript):
        annotation = annotation.value
    if isinstance(annotation, ast.Constant):
        return str(annotation.value).split("[")[0].rpartition(".")[2]
    return (dotted_name(annotation) or "").rpartition(".")[2]


def is_ours(target: str) -> bool:
    """Whether a dotted name is of this project."""
    return target.split(".", 1)[0] in OURS


def imported(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, str]]:
    """The names that an import binds, each with the dotted name that it stands for; `*` for all."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            first = alias.name.split(".", 1)[0]
            yield (alias.asname, alias.name) if alias.asname else (first, first)
        return
    above = package.split(".")
    base = ".".join([*above[: len(above) - node.level + 1], *filter(None, [node.module])])
    source = base if node.level else str(node.module)
    for alias in node.names:
        yield alias.asname or alias.name, f"{source}.{alias.name}"


@dataclass
class Module:
    """A module's statements by what they bind.

    Attributes:
        name, package: dotted.
        body: all of its statements.
        definitions: the statements that bind a name, by the name.
        imports: the dotted names that an imported name may stand for.
        effects: statements that do something beyond binding a name.
        executed: modules, or names in them, whose import is a part of importing this one.
        trees: what has been written down of it, by the names of definitions.
    """

    name: str
    package: str
    body: list[ast.stmt]
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, list[str]] = field(default_factory=dict)
    effects: list[ast.stmt] = field(default_factory=list)
    executed: list[str] = field(default_factory=list)
    trees: dict[str, Tree] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.body:
            self._sort(node)

    def _sort(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._bind(node)
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            self.definitions.setdefault(node.name, []).append(node)
            if not all(_harmless(one) for one in node.decorator_list):
                self.effects.append(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and (names := _assigned(node)):
            for name in names:
                self.definitions.setdefault(name, []).append(node)
        elif isinstance(node, ast.If) and _guard(node.test) is not None:
            # never run, or only where the module is the program
            for one in node.orelse:
                self._sort(one)
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            self._sort_compound(node)

    def _sort_compound(self, node: ast.stmt) -> None:
        """A statement that acts; names bound anywhere in it stand for all of it."""
        self.effects.append(node)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                self._bind(inner)
            elif isinstance(inner, (*FUNCTIONS, ast.ClassDef)):
                self.definitions.setdefault(inner.name, []).append(node)
            elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                self.definitions.setdefault(inner.id, []).append(node)

    def _bind(self, node: ast.Import | ast.ImportFrom) -> None:
        for bound, target in imported(node, self.package):
            self.imports.setdefault(bound, []).append(target)
        if isinstance(node, ast.Import):
            self.executed += [alias.name for alias in node.names]
        else:
            self.executed += [target for _, target in imported(node, self.package)]


@cache
def _parsed(name: str, package: str, content: bytes) -> Module:
    """A module from its text; what several projects have alike is read once."""
    return Module(name, package, ast.parse(content).body)


def _harmless(decorator: ast.expr) -> bool:
    return dotted_name(decorator.func if isinstance(decorator, ast.Call) else decorator) in HARMLESS


def _assigned(node: ast.Assign | ast.AnnAssign) -> list[str]:
    """The names that an assignment binds; none where it also sets an attribute or an item."""
    names: list[str] = []
    targets: list[ast.expr] = list(node.targets) if isinstance(node, ast.Assign) else [node.target]
    while targets:
        target = targets.pop()
        if isinstance(target, ast.Tuple | ast.List):
            targets += target.elts
        elif isinstance(target, ast.Starred):
            targets.append(target.value)
        elif isinstance(target, ast.Name):
            names.append(target.id)
        else:
            return []
    return names


def _guard(test: ast.expr) -> str | None:
    """TYPE_CHECKING or __name__ where a condition asks for that."""
    if isinstance(test, ast.Compare):
        return "__name__" if dotted_name(test.left) == "__name__" else None
    return "TYPE_CHECKING" if (dotted_name(test) or "").endswith("TYPE_CHECKING") else None


# a definition: its module's name and its own; WHOLE for all of the module, and `!3` for its third effect
Definition = tuple[str, str]


class Project:
    """The modules below a folder, read as they are needed, each once.

    Args:
        root: holds the packages `OURS`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._homes: dict[str, Path | None] = {}
        self._modules: dict[str, Module | None] = {}
        self._said: dict[Definition, str] = {}
        self._next: dict[Definition, frozenset[Definition]] = {}
        self._reached: dict[str, frozenset[Definition]] = {}

    def digest(self, targets: Iterable[str]) -> str:
        """A hash over all definitions that some dotted names reach."""
        found = frozenset[Definition]().union(*(self.reached(target) for target in targets))
        said = sorted({self._said_by(one) for one in found})
        return hashlib.sha256("\n".join(said).encode()).hexdigest()

    def reached(self, target: str) -> frozenset[Definition]:
        """All definitions that a dotted name reaches."""
        if target not in self._reached:
            found: set[Definition] = set()
            waiting = list(self.find(target))
            while waiting:
                one = waiting.pop()
                if one not in found:
                    found.add(one)
                    waiting += self._follow(one)
            self._reached[target] = frozenset(found)
        return self._reached[target]

    def find(self, target: str) -> frozenset[Definition]:
        """The definitions that a dotted name of this project stands for."""
        return frozenset(self._find(target, set()))

    def _find(self, target: str, seen: set[str]) -> Iterator[Definition]:
        parts = target.split(".")
        if target in seen or self._home(parts[0]) is None:
            return
        seen.add(target)
        for count in range(len(parts), 0, -1):
            module = self.module(".".join(parts[:count]))
            if module is not None:
                yield from self._in_module(module, parts[count:], seen)
                return

    def _in_module(self, module: Module, rest: list[str], seen: set[str]) -> Iterator[Definition]:
        if not rest or rest[0] == WHOLE:
            yield (module.name, WHOLE)
        elif rest[0] in module.definitions:
            yield (module.name, rest[0])
        elif rest[0] in module.imports:
            # handed on from where it was imported
            for target in module.imports[rest[0]]:
                yield from self._find(".".join([target, *rest[1:]]), seen)
        else:
            yield (module.name, WHOLE)

    def _home(self, package: str) -> Path | None:
        """The folder that holds a package of this project or of the user, None for any other."""
        if package not in self._homes:
            self._homes[package] = (
                self.root if package in OURS else folder_of_users(package) or _beside(package)
            )
        return self._homes[package]

    def module(self, name: str) -> Module | None:
        """A module by its dotted name, None where it has no file or is of a library."""
        home = self._home(name.split(".", 1)[0])
        if home is None:
            return None
        if name not in self._modules:
            base = home.joinpath(*name.split("."))
            files = (base.with_suffix(".py"), base / "__init__.py")
            found = next((path for path in files if path.is_file()), None) or own.source(name)
            if found is None:
                self._modules[name] = None
            else:
                package = name if found.name == "__init__.py" else name.rpartition(".")[0]
                self._modules[name] = _parsed(name, package, found.read_bytes())
        return self._modules[name]

    def _tree(self, one: Definition) -> Tree:
        module = self.module(one[0])
        assert module is not None
        if one[1] not in module.trees:
            module.trees[one[1]] = Reader(module.package).tree(_statements(module, one[1]))
        return module.trees[one[1]]

    def _follow(self, one: Definition) -> frozenset[Definition]:
        """What a definition names, and what importing its module does."""
        if one not in self._next:
            module, tree = self.module(one[0]), self._tree(one)
            assert module is not None
            found: set[Definition] = set()
            for name in tree.names:
                found |= self._named(module, tree, name)
            if tree.names & LOOKUPS:
                found.add((module.name, WHOLE))
            found |= self._effects(module)
            if any(name.rpartition(".")[2] in SUBCLASSES for name in tree.names) or _defines(
                _statements(module, one[1]), SUBCLASSES
            ):
                found |= {(name, WHOLE) for name in self._executed(module.name)}
            self._next[one] = frozenset(found)
        return self._next[one]

    def _named(self, module: Module, tree: Tree, dotted: str) -> frozenset[Definition]:
        """The definitions that a name in a module stands for; none of builtins, locals, other libraries."""
        first, _, rest = dotted.partition(".")
        targets = [*tree.imports.get(first, []), *module.imports.get(first, [])]
        found = frozenset[Definition]()
        for target in targets:
            found |= self.find(f"{target}.{rest}" if rest else target)
        if first in module.definitions:
            found |= {(module.name, first)}
        if not found and not targets and is_ours(dotted):
            # in a string
            found |= self.find(dotted)
        for star in module.imports.get(WHOLE, []):
            found |= self.find(star)
        return found

    def _effects(self, module: Module) -> set[Definition]:
        """What runs when a module is imported."""
        return {
            (name, f"!{number}")
            for name in self._executed(module.name)
            if (other := self.module(name)) is not None
            for number in range(len(other.effects))
        }

    def _executed(self, name: str) -> set[str]:
        """The modules that importing a module imports, itself included."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            dotted = waiting.pop()
            parts = dotted.split(".")
            for count in range(1, len(parts) + 1):
                part = ".".join(parts[:count])
                if part not in found and (module := self.module(part)) is not None:
                    found.add(part)
                    waiting += module.executed
        return found

    def _said_by(self, one: Definition) -> str:
        """A hash of a definition, and of what each of its names stands for."""
        if one not in self._said:
            module, tree = self.module(one[0]), self._tree(one)
            assert module is not None
            lines = [tree.digest]
            for name in sorted(tree.names):
                trees = sorted(self._tree(other).digest for other in self._named(module, tree, name))
                targets = module.imports.get(name.partition(".")[0], [])
                others = [target for target in targets if not is_ours(target)]
                if trees or others:
                    lines.append(" ".join([_last(name), *trees, *others]))
            self._said[one] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        return self._said[one]


def folder_of_users(package: str) -> Path | None:
    """The folder that holds a package of the user's own; None for those of Python, and for installed ones."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    places = [] if spec is None else [*(spec.submodule_search_locations or [spec.origin or ""])]
    if not places or not Path(places[0]).exists():
        return None
    folder = Path(places[0]).resolve().parent
    installed = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]
    return None if any(folder.is_relative_to(path) for path in installed) else folder


def _beside(package: str) -> Path | None:
    """The folder of a module that `import=` names, or that lies in the current folder."""
    file = own.source(package)
    if file is None:
        return None
    return file.parents[1] if file.name == "__init__.py" else file.parent


def _last(name: str) -> str:
    """A dotted name of this project, as it stands in a string, without the place that it may move from."""
    return name.rpartition(".")[2] if is_ours(name) else name


def _statements(module: Module, name: str) -> list[ast.stmt]:
    if name == WHOLE:
        return module.body
    return [module.effects[int(name[1:])]] if name.startswith("!") else module.definitions[name]


def _defines(nodes: Iterable[ast.stmt], names: set[str]) -> bool:
    """Whether a class among these has a method of one of these names."""
    return any(
        isinstance(inner, FUNCTIONS) and inner.name in names
        for node in nodes
        if isinstance(node, ast.ClassDef)
        for inner in node.body
    )
