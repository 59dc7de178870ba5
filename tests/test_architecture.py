"""The laws of the architecture: imports point one way, the core does no I/O, no module keeps state.

import-linter checks the imports between modules (contracts in ``pyproject.toml``). What it cannot see is read from the
source here: files, clocks and output reached without an import, coroutines, and state at module level.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "proxy"
CORE_ROOMS = ("sip", "sdp", "transaction", "dialog", "rewrite", "b2bua")
CORE = [
    PACKAGE / "__init__.py",
    PACKAGE / "audit" / "__init__.py",
    PACKAGE / "audit" / "records.py",
    *sorted(path for room in CORE_ROOMS for path in (PACKAGE / room).glob("**/*.py")),
]
EVERY = sorted(PACKAGE.glob("**/*.py"))

FORBIDDEN_MODULES = frozenset(
    """
    asyncio concurrent importlib io logging multiprocessing os pathlib random secrets selectors signal socket ssl
    structlog subprocess tempfile threading time uuid uvloop yaml
    """.split()
)
FORBIDDEN_BUILTINS = frozenset("__import__ breakpoint eval exec input open print".split())
CLOCK_METHODS = frozenset("now today utcnow".split())

CONTAINERS = frozenset(
    """
    Counter OrderedDict WeakKeyDictionary WeakSet WeakValueDictionary bytearray count cycle defaultdict deque dict list
    set
    """.split()
)
MUTATORS = frozenset(
    """
    add append appendleft clear discard extend insert pop popitem popleft remove setdefault sort update
    """.split()
)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def impurities(tree: ast.Module) -> Iterator[str]:
    """What in a module of the core reaches outside: ``"<line>: <what>"``."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    if is_forbidden(alias.name):
                        yield f"{node.lineno}: imports {alias.name}"
            case ast.ImportFrom(module=str(module), level=0) if is_forbidden(module):
                yield f"{node.lineno}: imports {module}"
            case ast.Call(func=ast.Name(id=name)) if name in FORBIDDEN_BUILTINS:
                yield f"{node.lineno}: calls {name}()"
            case ast.Call(func=ast.Attribute(value=owner, attr=method)) if method in CLOCK_METHODS and is_date(owner):
                yield f"{node.lineno}: reads the clock by {method}()"
            case ast.AsyncFunctionDef(name=name):
                yield f"{node.lineno}: {name} is a coroutine"


def is_forbidden(module: str) -> bool:
    return module.partition(".")[0] in FORBIDDEN_MODULES


def is_date(owner: ast.expr) -> bool:
    """Whether an expression names the class ``date`` or ``datetime``."""
    match owner:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in ("date", "datetime")
        case _:
            return False


def is_mutable(value: ast.expr | None) -> bool:
    """Whether an expression makes a container that can be changed."""
    match value:
        case ast.Dict() | ast.List() | ast.Set() | ast.DictComp() | ast.ListComp() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in CONTAINERS
        case _:
            return False


def module_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run on import, those inside ``if``, ``try`` and ``for`` too, but not in functions and classes."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.stmt):
            yield node
        pending.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.excepthandler))


def containers(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Names at module level that are bound to a mutable container, with the line."""
    for node in module_level(tree):
        match node:
            case ast.Assign(targets=targets, value=value) if is_mutable(value):
                for target in targets:
                    if isinstance(target, ast.Name):
                        yield target.id, node.lineno
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if is_mutable(value):
                yield name, node.lineno


def state(tree: ast.Module) -> Iterator[str]:
    """Where a module keeps state: ``"<line>: <what>"``.

    A table named in capitals is a constant, as long as no function changes it. ``__all__`` and the like are the
    language's own.
    """
    names = dict(containers(tree))
    for name, line in names.items():
        if name != name.upper() and not name.startswith("__"):
            yield f"{line}: {name} is a mutable container at module level"
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            match node:
                case ast.Global(names=changed):
                    yield f"{node.lineno}: {function.name} rebinds {', '.join(changed)}"
                case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()) if name in names:
                    yield f"{node.lineno}: {function.name} changes {name}"
                case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)) if (
                    name in names and method in MUTATORS
                ):
                    yield f"{node.lineno}: {function.name} changes {name}"


def test_imports_keep_the_contracts() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", CORE, ids=relative)
def test_core_is_pure(path: Path) -> None:
    assert list(impurities(ast.parse(path.read_bytes()))) == []


@pytest.mark.parametrize("path", EVERY, ids=relative)
def test_module_keeps_no_state(path: Path) -> None:
    assert list(state(ast.parse(path.read_bytes()))) == []


def test_import_of_the_package_loads_nothing_else() -> None:
    """So that it is instant, and so that the core's ``proxy`` parent is as pure as the core."""
    code = "import sys; before = set(sys.modules); import proxy; print(sorted(set(sys.modules) - before))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "['proxy']"


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import os.path",
        "from asyncio import sleep",
        "def f():\n    import socket",
        "def f():\n    __import__('ssl')",
        "open('x')",
        "print('x')",
        "datetime.now()",
        "datetime.datetime.now(tz=UTC)",
        "async def f(): ...",
    ],
)
def test_impurity_is_seen(source: str) -> None:
    assert len(list(impurities(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import re",
        "from .time import x",
        "from proxy.transaction import timers",
        "self.random.now()",
        "def f(time): return time",
    ],
)
def test_purity_is_seen(source: str) -> None:
    assert list(impurities(ast.parse(source))) == []


@pytest.mark.parametrize(
    "source",
    [
        "cache = {}",
        "cache: dict[str, int] = {}",
        "_seen = set()",
        "if x:\n    calls = []",
        "try:\n    a = 1\nexcept ValueError:\n    calls = collections.deque()",
        "def f():\n    global x",
        "CACHE = {}\ndef f(x):\n    CACHE[x] = 1",
        "SEEN = {1}\ndef f(x):\n    SEEN.add(x)",
    ],
)
def test_state_is_seen(source: str) -> None:
    assert len(list(state(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "TABLE = {'a': 1}\ndef f(x):\n    return TABLE[x]",
        "__all__ = ['f']",
        "names = ('a', 'b')",
        "def f():\n    seen = set()\n    seen.add(1)",
        "class C:\n    def f(self):\n        self.seen = []",
    ],
)
def test_statelessness_is_seen(source: str) -> None:
    assert list(state(ast.parse(source))) == []
