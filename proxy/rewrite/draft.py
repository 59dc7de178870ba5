"""A message on its way from one leg to the other: every edit is recorded as it is made, so none is made in secret."""

from __future__ import annotations

from typing import Final

from proxy.audit.records import Change
from proxy.sdp.editor import Editor
from proxy.sdp.offer_answer import map_answer
from proxy.sdp.session import Session
from proxy.sip.message import Header, Message, Request, Response, has_break

__all__ = ["Draft"]

_SDP_TYPE: Final = "application/sdp"


class Draft:
    """A mutable copy of a message's lines with the record of its edits.

    Attributes:
        source: the message that it is made from.
        method: for requests the method, for responses that of their CSeq.
        uri: the Request-URI; "" for a response.
        status: the status code; 0 for a request.
        reason: the reason phrase of a response.
        headers: the header fields as they stand now. Change them only through the methods.
        may_repeat: False where it is known that no two header fields have the same key.
        changes: what was done so far, in order (`audit.records.replay` applies it).
        step: who is at work; stands in each recorded change. Set it before editing.
    """

    __slots__ = (
        "_added",
        "_body",
        "_canonical",
        "_editor",
        "_found",
        "_has_sdp",
        "_looked_at",
        "_session",
        "_untouched",
        "changes",
        "headers",
        "may_repeat",
        "method",
        "reason",
        "source",
        "start_line",
        "status",
        "step",
        "uri",
    )

    def __init__(self, message: Message) -> None:
        self.source = message
        self.start_line = message.start_line
        self.headers: list[Header] = list(message.headers)
        self._found = message.keys()
        self._added: set[str] | None = None
        self.may_repeat = len(self.headers) != len(self._found)
        self._has_sdp = False
        self._looked_at = -1
        self._body = message.body
        self._session: Session | None = None
        self._editor: Editor | None = None
        self._untouched: Session | None = None
        self._canonical = True
        self.changes: list[Change] = []
        self.step = "builtin:none"
        self.method: str
        self.uri: str = ""
        self.status: int = 0
        self.reason: str = ""
        if isinstance(message, Request):
            self.method = message.method
            self.uri = message.uri
        else:
            assert isinstance(message, Response)
            self.status = message.status
            self.reason = message.reason
            self.method = message.cseq.method

    def may_have(self, keys: tuple[str, ...]) -> bool:
        """Whether one of these keys may be present: False only where none is."""
        found, added = self._found, self._added
        return any(key in found or (added is not None and key in added) for key in keys)

    def _note(self, key: str) -> None:
        """A header field with this key comes in."""
        if key in self._found:
            self.may_repeat = True
        elif self._added is None:
            self._added = {key}
        elif key in self._added:
            self.may_repeat = True
        else:
            self._added.add(key)

    def find(self, key: str) -> Header | None:
        """The first header field with this key, or None."""
        if key in self._found or (self._added is not None and key in self._added):
            for item in self.headers:
                if item.key == key:
                    return item
        return None

    def positions(self, key: str) -> list[int]:
        """Where the header fields with this key stand now."""
        if key in self._found or (self._added is not None and key in self._added):
            return [at for at, item in enumerate(self.headers) if item.key == key]
        return []

    def set_uri(self, uri: str) -> None:
        """Set the Request-URI. Raises ValueError for a line break or NUL in it."""
        if uri != self.uri:
            self.uri = uri
            self._set_start_line(f"{self.method} {uri} SIP/2.0")

    def set_status(self, status: int, reason: str) -> None:
        """Set status code and reason phrase of a response. Raises ValueError for a line break or NUL in it."""
        if (status, reason) != (self.status, self.reason):
            self.status, self.reason = status, reason
            self._set_start_line(f"SIP/2.0 {status} {reason}")

    def become_request(self, method: str, uri: str) -> None:
        """Make another request of it, or a request of a response."""
        self.method, self.uri, self.status, self.reason = method, uri, 0, ""
        self._set_start_line(f"{method} {uri} SIP/2.0")

    def _set_start_line(self, line: str) -> None:
        if has_break(line):
            raise ValueError("line break or NUL in a start line")
        if line != self.start_line:
            self.changes.append(Change(self.step, "start-line", 0, self.start_line, line))
            self.start_line = line

    def insert(self, index: int, item: Header) -> None:
        """Insert a header field before the one at `index`."""
        self._note(item.key)
        self.changes.append(Change(self.step, "header", index, None, item.line))
        self.headers.insert(index, item)

    def append(self, item: Header) -> None:
        """Add a header field at the end."""
        self._note(item.key)
        self.changes.append(Change(self.step, "header", len(self.headers), None, item.line))
        self.headers.append(item)

    def remove(self, index: int) -> None:
        """Remove the header field at `index`."""
        self.changes.append(Change(self.step, "header", index, self.headers[index].line, None))
        del self.headers[index]

    def insert_all(self, index: int, items: list[Header]) -> None:
        """Insert header fields before the one at `index`, in their order."""
        step, at = self.step, index
        for item in items:
            self._note(item.key)
            self.changes.append(Change(step, "header", at, None, item.line))
            at += 1
        self.headers[index:index] = items

    def remove_owned(self, steps: dict[str, str]) -> None:
        """Remove every header field whose key is in `steps`, each under its own step there."""
        kept: list[Header] = []
        changes = self.changes
        for item in self.headers:
            step = steps.get(item.key)
            if step is None:
                kept.append(item)
            else:
                changes.append(Change(step, "header", len(kept), item.line, None))
        self.headers = kept

    def replace(self, index: int, item: Header) -> None:
        """Put another header field in the place of the one at `index`; the same line again is not recorded."""
        before = self.headers[index]
        if before.key != item.key:
            self._note(item.key)
        if before.line != item.line:
            self.changes.append(Change(self.step, "header", index, before.line, item.line))
        self.headers[index] = item

    def remove_all(self, key: str) -> None:
        """Remove every header field with this key."""
        for at in reversed(self.positions(key)):
            self.remove(at)

    @property
    def session(self) -> Session | None:
        """The SDP of the body as it stands now, or None when the body is no SDP. Raises SdpError.

        A body counts as SDP by its Content-Type, or, lacking one, by how it begins (OpenAI's 200 has none).
        """
        if self._session is None and self.has_sdp():
            self._session = Session.parse(self._body)
        return self._session

    def has_sdp(self) -> bool:
        """Whether the body is SDP, by its Content-Type or, lacking one, by its first bytes."""
        if not self._body:
            return False
        # Whatever could change it is recorded.
        if self._looked_at != len(self.changes):
            self._looked_at = len(self.changes)
            item = self.find("content-type")
            if item is None:
                self._has_sdp = self._body.startswith(b"v=0")
            else:
                value = item.value
                self._has_sdp = value == _SDP_TYPE or value.partition(";")[0].strip().lower() == _SDP_TYPE
        return self._has_sdp

    @property
    def sdp(self) -> Editor | None:
        """The editor of the body's SDP, or None when the body is no SDP. Raises SdpError."""
        if self._editor is None:
            session = self.session
            if session is None:
                return None
            self._canonical = session.is_canonical
            self._untouched = session.copy()
            self._editor = Editor(session, self._record_sdp)
        return self._editor

    def untouched_session(self, body: bytes) -> Session | None:
        """The SDP of `body` where that is the body that the draft began with and has read, as it was before all edits;
        else None."""
        session = self._untouched
        if session is None and self._editor is None and self._session is not None:
            session = self._session.copy()
        return session if session is not None and session.serialize() is body else None

    def map_answer(self, sent_offer: Session, original_offer: Session) -> None:
        """Put the body's SDP, an answer to `sent_offer`, into the terms of `original_offer` (`sdp.offer_answer`).

        Raises SdpError when it can't be an answer to it.
        """
        session = self.session
        if session is not None:
            self._canonical = session.is_canonical if self._editor is None else self._canonical
            self._session = map_answer(session, sent_offer, original_offer, self._record_sdp)
            self._editor = Editor(self._session, self._record_sdp)

    def _record_sdp(self, index: int, before: str | None, after: str | None) -> None:
        if not self._canonical:
            # The first edit also gives every line a CRLF.
            self._canonical = True
            old = self._body.decode("utf-8", "surrogateescape")
            new = "".join([f"{line}\r\n" for line in Session.parse(self._body).lines])
            self.changes.append(Change(self.step, "body", 0, old, new))
        self.changes.append(Change(self.step, "sdp", index, before, after))

    @property
    def body(self) -> bytes:
        """The body as it stands now."""
        if self._editor is None or self._session is None:
            return self._body
        return self._session.serialize()

    def set_body(self, body: bytes) -> None:
        """Replace the whole body."""
        before = self.body
        if body != before:
            old, new = before.decode("utf-8", "surrogateescape"), body.decode("utf-8", "surrogateescape")
            self.changes.append(Change(self.step, "body", 0, old, new))
        self._body = body
        self._session = self._editor = self._untouched = None

    def finish(self) -> Request | Response:
        """The message as it stands now."""
        # The editor records by this draft: a circle, which reference counts alone would not free.
        self._body = body = self.body
        self._session = self._editor = self._untouched = None
        if self.status:
            return Response(self.status, self.reason, self.headers, body, self.start_line)
        return Request(self.method, self.uri, self.headers, body, self.start_line)
