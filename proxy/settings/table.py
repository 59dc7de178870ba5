"""The settings table of the README, drawn from the models: `python -m proxy.settings.table`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from proxy.settings.loading import FLAGS
from proxy.settings.model import Settings

__all__ = ["settings_table"]


def settings_table() -> str:
    """One Markdown row per setting: name, flag, default, meaning."""
    lines = ["| setting | flag | default | what it is |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(Settings, "")]
    return "\n".join(lines)


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        annotation, dotted = field.annotation, f"{prefix}{name}"
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _rows(annotation, f"{dotted}.")
            continue
        flag = f"`{FLAGS[dotted]}`" if dotted in FLAGS else ""
        yield f"`{dotted}`", flag, _shown(field.default), (field.description or "").rstrip(".")


def _shown(default: object) -> str:
    match default:
        case None | () | "":
            return ""
        case _ if default is PydanticUndefined:
            return ""
        case bool():
            return f"`{str(default).lower()}`"
        case tuple():
            return ", ".join(f"`{_item(item)}`" for item in default)
        case _:
            return f"`{default}`"


def _item(item: object) -> str:
    if isinstance(item, BaseModel):
        inner = ", ".join(f"{name}: {value}" for name, value in item.model_dump(exclude_none=True).items())
        return f"{{{inner}}}"
    return str(item)


if __name__ == "__main__":
    sys.stdout.write(settings_table() + "\n")
