"""Shapes of messages as the store keeps them: sets of names, each written once, and found again without being made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.audit.redact import Redactor
from proxy.diagnosis.features import Skeletons, answer_shape, invite_shape
from proxy.storage.schema import set_id

__all__ = ["Sets"]

_MOST: Final = 4096


class Sets:
    """Knows the ids of sets, and which of them have not been written yet.

    Args:
        redactor: masks the names.

    Attributes:
        new: sets that are to be written, as text, by id.
    """

    __slots__ = ("_answers", "_ids", "_invites", "_redactor", "_skeletons", "_written", "new")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._skeletons = Skeletons()
        self._ids: dict[tuple[str, ...], int] = {}
        self._invites: dict[tuple[str, ...], int] = {}
        self._answers: dict[tuple[str, ...], int] = {}
        self._written: set[int] = set()
        self.new: dict[int, str] = {}

    def of_invite(self, lines: list[str]) -> int:
        """The id of an INVITE's shape."""
        return self._of_message(lines, self._invites, invite_shape)

    def of_answer(self, lines: list[str]) -> int:
        """The id of the shape of a final response."""
        return self._of_message(lines, self._answers, answer_shape)

    def _of_message(
        self, lines: list[str], known: dict[tuple[str, ...], int], shape: Callable[[str], tuple[str, ...]]
    ) -> int:
        bones = self._skeletons.of(lines)
        if bones is None:
            return self.of(shape("\r\n".join(lines)))
        found = known.get(bones)
        if found is None:
            found = self.of(shape("\r\n".join(bones)))
            _remember(known, bones, found)
        return found

    def of(self, names: tuple[str, ...]) -> int:
        """The id of any set."""
        found = self._ids.get(names)
        if found is None:
            found, text = set_id(tuple([_clean(self._redactor.line(name)) for name in names]))
            _remember(self._ids, names, found)
            if found not in self._written:
                if len(self._written) >= _MOST:
                    self._written.clear()
                self._written.add(found)
                self.new[found] = text
        return found


def _remember(where: dict[tuple[str, ...], int], names: tuple[str, ...], number: int) -> None:
    if len(where) >= _MOST:
        where.clear()
    where[names] = number


def _clean(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
