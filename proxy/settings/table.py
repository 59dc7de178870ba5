"""The tables of settings in README and docs/settings.md, drawn from the models.

`python -m proxy.settings.table` prints all settings, `python -m proxy.settings.table short` those that have a flag.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from proxy.settings.loading import FLAGS
from proxy.settings.model import Settings

__all__ = ["settings_table"]

_PLACES = {"targets": "NAME", "trunks": "NAME", "routes": "N", "retry.attempts": "N"}


class _Row(NamedTuple):
    name: str
    flag: str
    default: str
    meaning: str


def settings_table(*, short: bool = False) -> str:
    """A Markdown table with a row per setting; `short` leaves out those without a flag."""
    rows = [row for row in _rows(Settings, "") if row.flag or not short]
    lines = ["| setting | flag | default | what it is |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def _rows(model: type[BaseModel], prefix: str) -> Iterator[_Row]:
    for name, field in model.model_fields.items():
        dotted = f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _rows(field.annotation, f"{dotted}.")
            continue
        flag = f"`{FLAGS[dotted]}`" if dotted in FLAGS else ""
        yield _Row(f"`{dotted}`", flag, _shown(field.default), (field.description or "").rstrip("."))
        if dotted in _PLACES:
            yield from _rows(_item_model(field.annotation), f"{dotted}.{_PLACES[dotted]}.")


def _item_model(annotation: object) -> type[BaseModel]:
    """The model of the items of a mapping or a list."""
    for inner in getattr(annotation, "__args__", ()):
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner
    raise TypeError(f"{annotation} holds no sections")


def _shown(default: object) -> str:
    if default is PydanticUndefined or isinstance(default, SecretStr) or default in (None, (), ""):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return ", ".join(f"`{_item(item)}`" for item in default)
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{default}`"


def _item(item: object) -> str:
    if isinstance(item, BaseModel):
        inner = ", ".join(f"{name}: {value}" for name, value in item.model_dump(exclude_none=True).items())
        return f"{{{inner}}}"
    return str(item)


if __name__ == "__main__":
    sys.stdout.write(settings_table(short="short" in sys.argv[1:]) + "\n")
