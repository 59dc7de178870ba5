"""Makes sure that addresses which several processes are about to share are nobody else's."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from proxy.transport.errors import ListenError, reason_of
from proxy.transport.listener import Listener
from proxy.transport.manager import server_socket
from proxy.transport.udp import udp_socket

__all__ = ["claim"]


def claim(listeners: Sequence[Listener]) -> tuple[Listener, ...]:
    """The listeners with real ports, after each address was bound alone for a moment.

    With SO_REUSEPORT a second Trunkline of the same user would be let in and take a part of the messages; without it
    the kernel refuses an address that anybody has, shared or not. Raises ListenError, one line that names the listener.
    """
    found: list[Listener] = []
    with ExitStack() as stack:
        for listener in listeners:
            kind = socket.SOCK_DGRAM if listener.transport == "udp" else socket.SOCK_STREAM
            make = udp_socket if kind == socket.SOCK_DGRAM else server_socket
            try:
                place = socket.getaddrinfo(listener.host, listener.port, type=kind, flags=socket.AI_PASSIVE)[0]
                sock = stack.enter_context(make(place[0], place[4]))
            except OSError as error:
                raise ListenError(f"{listener}: {reason_of(error)}") from error
            found.append(dataclasses.replace(listener, port=sock.getsockname()[1]))
    return tuple(found)
