"""Rule files: YAML text to a tree of values that know where they stand, and on to a compiled rule set.

The only place that knows YAML. Scalars are read plainly: whole numbers, `true` and `false`; everything else is text, so
`no`, `on`, `1e3` and dates mean what they say. Tags, anchors and aliases are refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import yaml

from proxy.rewrite.compiler import compile_rule_set
from proxy.rewrite.engine import Include, RuleSet
from proxy.rewrite.nodes import Node, NodeKind, Problem, Report, nearest

__all__ = [
    "Problem",
    "RuleFileError",
    "link",
    "load_directory_or_files",
    "load_file",
    "load_text",
    "parse_tree",
    "rule_files",
]

_SUFFIXES: Final = (".yaml", ".yml")
_MAX_BYTES: Final = 8 << 20
_MAX_DEPTH: Final = 30
_MAX_INCLUDES: Final = 10
_MAX_RULES: Final = 20_000
_NUMBER: Final = re.compile(r"[-+]?[0-9]+")
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class RuleFileError(Exception):
    """Rule files with mistakes.

    Attributes:
        problems: all mistakes, in the order of files and lines.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column)))
        super().__init__("\n".join([str(problem) for problem in self.problems]))


def load_file(path: str | Path) -> RuleSet:
    """Read one rule file. Raises RuleFileError with every mistake, also when the file can't be read.

    Its includes are not linked yet (`link`).
    """
    source = str(path)
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise RuleFileError([Problem(source, 0, 0, "", f"can't be read: {error.strerror or error}")]) from error
    if len(content) > _MAX_BYTES:
        raise RuleFileError([Problem(source, 0, 0, "", "is too large", f"up to {_MAX_BYTES >> 20} MiB")])
    return _load(content, source)


def load_text(text: str, source: str) -> RuleSet:
    """Read rules from text; `source` names it in messages. Raises RuleFileError with every mistake.

    Such a set can't include others.
    """
    rule_set = _load(text.encode("utf-8", "surrogatepass"), source)
    problems = link({rule_set.name: rule_set})
    if problems:
        raise RuleFileError(problems)
    return rule_set


def load_directory_or_files(paths: Iterable[str | Path], beside: Iterable[str | Path] = ()) -> dict[str, RuleSet]:
    """Read rule files, and of each directory those that end in .yaml or .yml, by name.

    Sets of files `beside` them may be included, unless one of `paths` has the same name; their mistakes are not told.
    Raises RuleFileError with the mistakes of all files; two sets of the same name are one.
    """
    problems: list[Problem] = []
    found: dict[str, RuleSet] = {}
    for path in _files(paths, problems):
        try:
            rule_set = load_file(path)
        except RuleFileError as error:
            problems.extend(error.problems)
            continue
        other = found.setdefault(rule_set.name, rule_set)
        if other is not rule_set:
            what = f'names its set "{rule_set.name}", as {other.source} does'
            problems.append(Problem(str(path), 0, 0, "", what, "a name of its own for each file"))
    if not problems:
        problems += link({**_good_ones(beside), **found})
    if problems:
        raise RuleFileError(problems)
    return found


def _good_ones(paths: Iterable[str | Path]) -> dict[str, RuleSet]:
    """The sets of those files that have no mistake."""
    sets: dict[str, RuleSet] = {}
    for path in _files(paths, []):
        try:
            rule_set = load_file(path)
        except RuleFileError:
            continue
        sets[rule_set.name] = rule_set
    return sets


def link(sets: Mapping[str, RuleSet]) -> list[Problem]:
    """Connect each `include` with the set of its name; what is wrong with includes, an empty list when nothing is.

    A set that includes others gets a version made of theirs and its own, so that it says what is applied. To be called
    once with all the sets that were loaded together.
    """
    problems: list[Problem] = []
    for rule_set in sets.values():
        for include in rule_set.includes:
            include.rule_set = sets.get(include.name)
            if include.rule_set is None:
                what = f'"{include.name}" is no rule set that is loaded'
                known = ", ".join(sorted(sets))
                problems.append(_include_problem(rule_set, include, what, known, nearest(include.name, sets)))
    done: set[str] = set()
    for rule_set in sets.values() if not problems else ():
        problems += _finish_includes(rule_set, (), done)
    return problems


def _include_problem(rule_set: RuleSet, include: Include, what: str, allowed: str, suggestion: str = "") -> Problem:
    return Problem(rule_set.source, include.line, include.column, "", what, allowed, suggestion)


def _finish_includes(rule_set: RuleSet, above: tuple[str, ...], done: set[str]) -> list[Problem]:
    """Finish the included sets first, then this one. Circles, and chains that are too long, are problems."""
    problems: list[Problem] = []
    if rule_set.name in done:
        return problems
    above = (*above, rule_set.name)
    for include in rule_set.includes:
        inner = include.rule_set
        assert inner is not None
        if inner.name in above or len(above) > _MAX_INCLUDES:
            way = " > ".join([*above, inner.name])
            problems.append(
                _include_problem(rule_set, include, f"includes in a circle, or too deep: {way}", "no circle")
            )
        else:
            problems += _finish_includes(inner, above, done)
    done.add(rule_set.name)
    if not problems:
        rule_set.finish_includes()
        if rule_set.weight > _MAX_RULES:
            what = f"includes {rule_set.weight} rules in all"
            problems.append(_include_problem(rule_set, rule_set.includes[0], what, f"up to {_MAX_RULES}"))
    return problems


def rule_files(path: Path) -> tuple[list[Path], list[Problem]]:
    """The rule files that a path stands for: itself, or of a directory those in it, by name; and what is wrong."""
    if not path.is_dir():
        return [path], []
    files = sorted([inner for inner in path.iterdir() if inner.suffix in _SUFFIXES and inner.is_file()])
    if files:
        return files, []
    return [], [Problem(str(path), 0, 0, "", "holds no rule file", "files that end in .yaml or .yml")]


def _files(paths: Iterable[str | Path], problems: list[Problem]) -> Iterator[Path]:
    """Each file once, directories resolved to their rule files in order of names."""
    seen: set[Path] = set()
    for given in paths:
        files, wrong = rule_files(Path(given))
        problems += wrong
        for file in files:
            real = file.resolve()
            if real not in seen:
                seen.add(real)
                yield file


def _load(content: bytes, source: str) -> RuleSet:
    report = Report(source)
    root = parse_tree(content, report)
    rule_set = None
    if root is not None:
        version = hashlib.sha256(content).hexdigest()[:12]
        rule_set = compile_rule_set(root, version, report)
    if rule_set is None:
        raise RuleFileError(report.problems)
    return rule_set


def parse_tree(content: bytes, report: Report) -> Node | None:
    """Read YAML into a tree; None after mistakes in the YAML itself were reported."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        _report_at(report, line, error.start - before.rfind(b"\n"), "is not UTF-8")
        return None
    try:
        root = _tree(text, report)
    except yaml.reader.ReaderError as error:
        at = error.position if isinstance(error.position, int) else 0
        _report_at(report, text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at), f"is not YAML: {error.reason}")
        return None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        context = f" ({error.context})" if error.context else ""
        _report_at(report, line, column, f"is not YAML: {error.problem or 'it can not be read'}{context}")
        return None
    return root if not report.problems else None


def _report_at(report: Report, line: int, column: int, what: str) -> None:
    report.problems.append(Problem(report.source, line, column, "", what))


def _tree(text: str, report: Report) -> Node | None:
    """Build the tree from YAML events, without recursion and without ever following an alias."""
    root: Node | None = None
    stack: list[Node] = []
    keys: list[Node | None] = []
    documents = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                _report_at(report, *_place(event), "begins a second document; a rule file is one")
                return None
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            stack.pop()
            keys.pop()
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        node = _node(event, report)
        if not stack:
            root = node
        elif stack[-1].kind == "list":
            stack[-1].items.append(node)
        else:
            key = keys[-1]
            if key is None:
                keys[-1] = node
            else:
                stack[-1].pairs.append((key, node))
                keys[-1] = None
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append(node)
            keys.append(None)
            if len(stack) > _MAX_DEPTH:
                report.add(node, "is nested too deeply", f"up to {_MAX_DEPTH} levels")
                return None
    if root is None:
        _report_at(report, 1, 1, "is empty")
    return root


def _place(event: yaml.Event) -> tuple[int, int]:
    """The line and column where an event begins, from 1 on."""
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def _node(event: yaml.NodeEvent, report: Report) -> Node:
    line, column = _place(event)
    if isinstance(event, yaml.ScalarEvent):
        node = Node(_kind(event), line, column, event.value, bool(event.style))
        tagged = event.tag is not None and event.tag != "!"
    elif isinstance(event, yaml.CollectionStartEvent):
        node = Node("mapping" if isinstance(event, yaml.MappingStartEvent) else "list", line, column)
        tagged = event.tag is not None
    else:
        node = Node("nothing", line, column)
        report.add(node, f"is an alias (*{event.anchor}); rule files have none", "the value itself")
        return node
    if tagged:
        report.add(node, f"has a tag ({event.tag}); rule files have none", "the value itself")
    if event.anchor is not None:
        report.add(node, f"has an anchor (&{event.anchor}); rule files have none", "the value itself")
    return node


def _kind(event: yaml.ScalarEvent) -> NodeKind:
    """What a scalar is: quoted ones and blocks are text."""
    value = event.value
    if event.style:
        return "text"
    if value in ("", "~", "null"):
        return "nothing"
    if value in ("true", "false", "True", "False"):
        return "flag"
    return "number" if _NUMBER.fullmatch(value) else "text"
