"""Where settings come from (environment and YAML file), and their mistakes as lines that an operator can act on."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

__all__ = [
    "PREFIX",
    "EnvironmentSource",
    "FileSource",
    "SettingsError",
    "explain",
    "from_json",
    "nearest",
    "split_list",
]

PREFIX = "TRUNKLINE_"

# Kubernetes gives every pod of a namespace variables for a Service: these, for one named `trunkline`, are not ours.
_KUBERNETES = re.compile(
    r"TRUNKLINE(_\w+)?_(SERVICE_(HOST|PORT(_\w+)?)=|PORT(_\d+_(UDP|TCP|SCTP)(_\w+)?=|=(udp|tcp|sctp)://))"
)

_SECRET = frozenset(("password", "users", "secret", "token", "auth_key"))

Location = tuple[int | str, ...]


class SettingsError(Exception):
    """Settings that can't be used.

    Attributes:
        problems: one line each, ready to be shown; at least one.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def split_list(value: object) -> object:
    """A list from text as environment variables hold it: JSON when it starts with `[`, else comma-separated."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("["):
        return from_json(text)
    return [part.strip() for part in text.split(",") if part.strip()]


def from_json(text: str) -> object:
    """The value of JSON text. Raises ValueError that says where it is broken."""
    try:
        return cast(object, json.loads(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} at character {error.pos + 1}") from None


def json_text(value: object) -> object:
    """The value of text that holds JSON; what is no text stays as it is."""
    return from_json(value) if isinstance(value, str) else value


def nearest(word: str, allowed: Sequence[str]) -> str:
    """`; did you mean x?` with the nearest allowed word, or nothing when none is near."""
    close = difflib.get_close_matches(word, allowed, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


class _Loader(yaml.SafeLoader):
    """YAML with the plain values of version 1.2's core schema: `on`, `no` and `10:20` are text, as they look."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as the base class declares it


for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("null", r"null|Null|NULL|~|", [*"nN~", ""]),
    ("int", r"[-+]?[0-9]+", [*"-+0123456789"]),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", [*"-+.0123456789"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})\Z"), _first)


class EnvironmentSource(PydanticBaseSettingsSource):
    """Variables `TRUNKLINE_<SETTING>`; `__` goes one level down, as in `TRUNKLINE_RETRY__MAX_ATTEMPTS`.

    Values stay text: the models turn them into lists and mappings. Empty variables count as not set.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not used: `__call__` gives all values at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """All variables of ours as nested dictionaries."""
        values: dict[str, Any] = {}
        for name, text in os.environ.items():
            if not name.startswith(PREFIX) or not text.strip() or _KUBERNETES.match(f"{name}={text}"):
                continue
            path = name.removeprefix(PREFIX).lower().split("__")
            inner = values
            for part in path[:-1]:
                below = inner.setdefault(part, {})
                if not isinstance(below, dict):
                    below = inner[part] = {}
                inner = below
            inner.setdefault(path[-1], text)
        return values


class FileSource(PydanticBaseSettingsSource):
    """A YAML file. Raises SettingsError when it can't be read or is no mapping of settings."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path | None) -> None:
        super().__init__(settings_cls)
        self._values = {} if path is None else _read_mapping(path)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not used: `__call__` gives all values at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """The content of the file."""
        return self._values


def _read_mapping(path: Path) -> dict[str, Any]:
    root = _compose(path)
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        line = root.start_mark.line + 1
        raise SettingsError([f"{path}:{line}: a settings file is a mapping of `setting: value` lines"])
    problems: list[str] = []
    _find_duplicates(path, root, problems)
    if problems:
        raise SettingsError(problems)
    try:
        loaded = yaml.load(path.read_bytes(), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise SettingsError([_yaml_problem(path, error)]) from None
    return {str(key): value for key, value in loaded.items()}


def _compose(path: Path) -> yaml.Node | None:
    try:
        return yaml.compose(path.read_bytes(), Loader=_Loader)
    except OSError as error:
        raise SettingsError([f"{path}: the settings file can't be read: {error.strerror}"]) from None
    except yaml.YAMLError as error:
        raise SettingsError([_yaml_problem(path, error)]) from None


def _yaml_problem(path: Path, error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{path}:{mark.line + 1}:{mark.column + 1}: not valid YAML: {error.problem}"
    return f"{path}: not valid YAML: {' '.join(str(error).split())}"


def _find_duplicates(path: Path, node: yaml.Node, problems: list[str]) -> None:
    """YAML takes the last of two equal keys in silence; an operator would search long for that."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                problems.append(f"{path}:{line}: {key.value} stands twice (first in line {seen[key.value]})")
            seen[key.value] = line
            _find_duplicates(path, value, problems)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _find_duplicates(path, value, problems)


def _line_of(path: Path, location: Location) -> int | None:
    """The line of a setting in the file, or None when it does not stand there."""
    node = _compose(path)
    line: int | None = None
    for part in location:
        below: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    below, line = value, key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            below = node.value[part]
            line = below.start_mark.line + 1
        if below is None:
            # Below the last setting that has a place of its own, the place is that setting's.
            return line if isinstance(node, yaml.ScalarNode) else None
        node = below
    return line


def explain(
    error: ValidationError,
    model: type[BaseModel],
    flags: Mapping[str, Any],
    flag_names: Mapping[str, str],
    path: Path | None,
) -> list[str]:
    """One line for each mistake: where it stands (flag, variable, or file and line), what is wrong, what is allowed.

    `flag_names` maps a setting (`listen`, `tls.ca_file`) to the flag that sets it.
    """
    lines: list[str] = []
    for detail in error.errors(include_url=False):
        where = _where(detail["loc"], flags, flag_names, path)
        lines += [f"{where}: {line}" if where else line for line in _what(detail, model).splitlines()]
    return list(dict.fromkeys(lines))


def _where(location: Location, flags: Mapping[str, Any], flag_names: Mapping[str, str], path: Path | None) -> str:
    if not location:
        return ""
    for end in range(len(location), 0, -1):
        part = location[:end]
        dotted = ".".join(str(item) for item in part)
        if _holds(flags, part):
            return flag_names.get(dotted, dotted)
        name = PREFIX + "__".join(str(item) for item in part).upper()
        if os.environ.get(name, "").strip():
            return name
        if path is not None and (line := _line_of(path, part)) is not None:
            return f"{path}:{line}: {'.'.join(str(item) for item in location if not isinstance(item, int))}"
    return ".".join(str(item) for item in location)


def _holds(values: object, location: Location) -> bool:
    for part in location:
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True


def _what(detail: ErrorDetails, model: type[BaseModel]) -> str:
    if detail["type"] == "extra_forbidden":
        owner = _model_at(model, detail["loc"][:-1])
        name, names = str(detail["loc"][-1]), sorted(owner.model_fields)
        return f"unknown setting {name}{nearest(name, names)} (allowed: {', '.join(names)})"
    message = detail["msg"]
    for start, instead in (("Value error, ", ""), ("Input should be ", "must be "), ("Field required", "is missing")):
        if message.startswith(start):
            message = instead + message.removeprefix(start)
    given = detail["input"]
    if not _SECRET.isdisjoint(detail["loc"]):
        return message
    if detail["type"] == "value_error" or (isinstance(given, Mapping | Sequence) and not isinstance(given, str)):
        return message
    return f"{message} (given: {str(given)[:80]})"


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel]:
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:
            continue
        below = _model_in(field.annotation)
        if below is not None:
            model = below
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model that an annotation is, or that it holds as `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
