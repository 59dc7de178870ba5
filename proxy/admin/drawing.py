"""The ladder of a call as SVG: both legs on one axis of time, each message a link to its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from markupsafe import Markup, escape

__all__ = ["Rung", "ladder"]

_WIDTH: Final = 860
_CALLER: Final = 150
_US: Final = 440
_TARGET: Final = 730
_TOP: Final = 46
_STEP: Final = 30


class Rung(NamedTuple):
    """One row of a ladder.

    Attributes:
        ms: milliseconds since the call's start.
        text: what is written there.
        number: of the message; 0 for a note.
        leg: "a" or "b". inward: whether the message came to us.
        kind: "request", "ok", "error", "progress" or "note".
    """

    ms: float
    text: str
    number: int = 0
    leg: str = ""
    inward: bool = False
    kind: str = "note"


def ladder(rungs: Sequence[Rung], caller: str, target: str) -> Markup:
    """Draw a ladder between two named neighbours."""
    height = _TOP + _STEP * (len(rungs) + 1)
    parts = [
        f'<svg class="ladder" viewBox="0 0 {_WIDTH} {height}" role="group" aria-label="Ladder of the call">',
        *[
            f'<text class="peer" x="{x}" y="20" text-anchor="middle">{escape(name)}</text>'
            f'<line class="life" x1="{x}" y1="30" x2="{x}" y2="{height - 8}"/>'
            for x, name in ((_CALLER, caller), (_US, "Trunkline"), (_TARGET, target))
        ],
    ]
    for at, rung in enumerate(rungs):
        y = _TOP + _STEP * (at + 1) - 8
        parts.append(f'<text class="ms" x="70" y="{y + 4}" text-anchor="end">{rung.ms:.1f}</text>')
        parts.append(_message(rung, y) if rung.number else _note(rung, y))
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 - all text in it was escaped


def _message(rung: Rung, y: int) -> str:
    left, right = (_CALLER, _US) if rung.leg == "a" else (_US, _TARGET)
    rightward = (rung.leg == "a") == rung.inward
    tip = right if rightward else left
    barb = tip - 8 if rightward else tip + 8
    way = f"{'from' if rung.inward else 'to'} the {'caller' if rung.leg == 'a' else 'target'}"
    return (
        f'<a href="#m{rung.number}" class="rung {rung.kind}" data-message="{rung.number}"'
        f' aria-label="{escape(rung.text)} {way} at {rung.ms:.0f} ms">'
        f'<rect class="hit" x="{left}" y="{y - 20}" width="{right - left}" height="{_STEP - 2}"/>'
        f'<line x1="{left}" y1="{y}" x2="{right}" y2="{y}"/>'
        f'<path d="M{barb} {y - 4} L{tip} {y} L{barb} {y + 4} Z"/>'
        f'<text x="{(left + right) // 2}" y="{y - 5}" text-anchor="middle">{escape(_short(rung.text, 38))}</text></a>'
    )


def _note(rung: Rung, y: int) -> str:
    return f'<text class="note {rung.kind}" x="{_US + 10}" y="{y + 4}">{escape(_short(rung.text, 66))}</text>'


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
