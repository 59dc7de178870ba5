"""What the stack wants done in the world: plain values that the runtime performs in order. An `Event` among them is to
be handed to the sinks."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.audit.records import Event
from proxy.sip.flow import Flow, Hop
from proxy.sip.uri import Uri

__all__ = ["Checkpoint", "CloseFlow", "Effect", "Open", "Resolve", "Send"]


class Send:
    """Write bytes to a flow."""

    __slots__ = ("data", "flow")

    def __init__(self, flow: Flow, data: bytes) -> None:
        self.flow = flow
        self.data = data


class Resolve:
    """Find the hops of a URI (RFC 3263); answer with `Stack.resolved` or `Stack.resolve_failed`."""

    __slots__ = ("token", "uri")

    def __init__(self, token: int, uri: Uri) -> None:
        self.token = token
        self.uri = uri


class Open:
    """Give a flow to a hop, a kept one where there is one; answer with `Stack.flow_opened` or `Stack.flow_failed`."""

    __slots__ = ("hop", "token")

    def __init__(self, token: int, hop: Hop) -> None:
        self.token = token
        self.hop = hop


class CloseFlow:
    """Close a connection after what was sent on it has left."""

    __slots__ = ("flow", "why")

    def __init__(self, flow: Flow, why: str) -> None:
        self.flow = flow
        self.why = why


class Checkpoint:
    """Have the facts that are needed to end a leg kept where they outlive this process, in place of those before.

    None: nothing is left to be ended. Only where the configuration asks for it (`StackConfig.checkpoints`).
    """

    __slots__ = ("call", "facts", "side")

    def __init__(self, call: str, side: str, facts: Sequence[object] | None) -> None:
        self.call = call
        self.side = side
        self.facts = facts


Effect = Send | Resolve | Open | CloseFlow | Event | Checkpoint
