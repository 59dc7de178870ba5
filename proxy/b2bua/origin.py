"""The o= line of a session whose other end changes: a peer must see one session, only its version grows
(RFC 3264 section 8)."""

from __future__ import annotations

from typing import Final

from proxy.rewrite.draft import Draft
from proxy.sdp.editor import Editor
from proxy.sdp.errors import SdpError
from proxy.sdp.session import Session

__all__ = ["Origin"]

_STEP: Final = "builtin:origin"


class Origin:
    """Puts the o= line that a peer knows into every session description that goes to it.

    Args:
        local_sdp: the last one that it got from us.
    """

    __slots__ = ("_fields", "_rest", "_version")

    def __init__(self, local_sdp: bytes) -> None:
        self._fields: list[str] = []
        self._version = 0
        self._rest: list[str] = []
        try:
            session = Session.parse(local_sdp)
        except SdpError:
            return
        self._fields = session.origin_fields
        version = session.origin_version or ""
        self._version = int(version) if version.isdigit() and version.isascii() and len(version) < 20 else 0
        self._rest = _without_origin(session)

    def keep(self, draft: Draft) -> None:
        """Put the line into a draft, with the version that follows, or the same one for the very same description."""
        editor = draft.sdp if self._fields else None
        if editor is not None:
            draft.step = _STEP
            self._apply(editor)

    def stamp(self, body: bytes) -> bytes:
        """The same for a description that we send by ourselves; one that can't be understood stays as it is."""
        try:
            session = Session.parse(body)
        except SdpError:
            return body
        if self._fields:
            self._apply(Editor(session, lambda _index, _before, _after: None))
        return session.serialize()

    def _apply(self, editor: Editor) -> None:
        session = editor.session
        rest = _without_origin(session)
        if rest != self._rest:
            self._rest = rest
            self._version += 1
        username, session_id, _, *address = self._fields
        line = f"o={' '.join([username, session_id, str(self._version), *address])}"
        at = session.first_line("o")
        if at < 0:
            editor.insert(1, line)
        elif session.lines[at] != line:
            editor.replace(at, line)


def _without_origin(session: Session) -> list[str]:
    return [line for line in session.lines if not line.startswith("o=")]
