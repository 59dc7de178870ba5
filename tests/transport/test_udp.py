"""UDP listeners and flows on loopback."""

import asyncio
import socket

import pytest
from structlog.testing import capture_logs

from proxy.sip.flow import Flow, Hop
from proxy.transport.errors import ListenError
from proxy.transport.listener import parse_listener
from proxy.transport.manager import Transports
from proxy.transport.udp import UdpSocket
from tests.transport.conftest import MakePeer, Start
from tests.transport.peers import Hooks, message, open_flow, opened


def address(transports: Transports, at: int = 0) -> tuple[str, int]:
    listener = transports.listeners[at]
    return listener.host, listener.port


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_datagram_comes_with_the_flow_of_its_peer_and_is_answered_on_it(
    start: Start, udp_peer: MakePeer, host: str
) -> None:
    text = f"udp:[{host}]:0" if ":" in host else f"udp:{host}:0"
    transports, hooks = await start(text)
    peer, other = await udp_peer(host), await udp_peer(host)
    peer.send(message("1"), address(transports))
    peer.send(message("2"), address(transports))
    other.send(message("3"), address(transports))
    await hooks.until_messages(3)
    flows = dict(hooks.messages)
    flow = flows[message("1")]
    assert flow is flows[message("2")]
    assert flow is not flows[message("3")]
    assert flow.remote == peer.address[:2]
    assert flow.local == address(transports)
    assert flow.listener == str(transports.listeners[0])
    assert (flow.transport, flow.reliable, flow.closed) == ("udp", False, False)
    transports.send(flow, b"answer")
    data, source = await peer.get()
    assert data == b"answer"
    assert source[:2] == address(transports)


async def test_request_of_ours_leaves_from_the_listener_at_once(start: Start, udp_peer: MakePeer) -> None:
    transports, hooks = await start("udp:127.0.0.1:0")
    peer = await udp_peer()
    answers: list[object] = []
    transports.open(Hop("udp", *peer.address), lambda flow, reason: answers.append(flow))
    assert len(answers) == 1, "a UDP flow needs no waiting"
    flow = await opened(transports, Hop("udp", *peer.address))
    assert flow is answers[0]
    transports.send(flow, message("1"))
    _, source = await peer.get()
    assert source == address(transports)
    peer.send(message("2"), source)
    await hooks.until_messages(1)
    assert hooks.messages[0][1] is flow


async def test_without_a_fitting_listener_a_socket_is_opened_once(start: Start, udp_peer: MakePeer) -> None:
    transports, hooks = await start("tcp:127.0.0.1:0", public_address="203.0.113.7")
    peer = await udp_peer()
    first, second = await asyncio.gather(
        opened(transports, Hop("udp", *peer.address)), opened(transports, Hop("udp", *peer.address))
    )
    assert first is second
    assert first.advertised == f"203.0.113.7:{first.local[1]}"
    transports.send(first, message("1"))
    _, source = await peer.get()
    assert source[1] == first.local[1]
    peer.send(message("2"), source)
    await hooks.until_messages(1)
    assert hooks.messages[0][1] is first


async def test_listener_on_loopback_does_not_send_to_the_world(start: Start) -> None:
    transports, _ = await start("udp:127.0.0.1:0")
    flow = await opened(transports, Hop("udp", "192.0.2.1", 5060))
    assert flow.local[0] == "0.0.0.0"


async def test_hop_that_is_no_address_is_refused(start: Start) -> None:
    transports, _ = await start("udp:127.0.0.1:0")
    assert await open_flow(transports, Hop("udp", "example.com", 5060)) == (None, "example.com is no IP address")


async def test_keep_alives_are_not_messages(start: Start, udp_peer: MakePeer) -> None:
    transports, hooks = await start("udp:127.0.0.1:0")
    peer = await udp_peer()
    for data in (b"\r\n\r\n", b"\r\n", b"\0\0\0\0", b"", b"short", message("1")):
        peer.send(data, address(transports))
    await hooks.until_messages(2)
    assert [data for data, _ in hooks.messages] == [b"short", message("1")]


async def test_peers_are_remembered_within_a_bound_and_forgotten_flows_still_work(
    start: Start, udp_peer: MakePeer
) -> None:
    transports, hooks = await start("udp:127.0.0.1:0", max_udp_flows=4)
    peers = [await udp_peer() for _ in range(6)]
    peers[0].send(message("0"), address(transports))
    await hooks.until_messages(1)
    flow = hooks.messages[0][1]
    for number, peer in enumerate(peers[1:], 1):
        peer.send(message(str(number)), address(transports))
        await hooks.until_messages(number + 1)
    assert transports.counters()["udp_flows"] <= 4
    peers[0].send(message("again"), address(transports))
    await hooks.until_messages(7)
    assert hooks.messages[-1][1] is not flow
    transports.send(flow, b"still there?")
    assert (await peers[0].get())[0] == b"still there?"


async def test_peer_in_use_is_not_forgotten(start: Start, udp_peer: MakePeer) -> None:
    transports, hooks = await start("udp:127.0.0.1:0", max_udp_flows=8)
    busy, others = await udp_peer(), [await udp_peer() for _ in range(12)]
    for number, other in enumerate(others):
        busy.send(message("busy"), address(transports))
        other.send(message("other"), address(transports))
        await hooks.until_messages(2 * number + 2)
    assert len({id(flow) for data, flow in hooks.messages if data == message("busy")}) == 1


async def test_silent_peers_are_forgotten_after_a_while_and_busy_ones_stay() -> None:
    now = 0.0
    seen: list[Flow] = []
    sock = UdpSocket("udp", "192.0.2.1:5060", lambda data, flow: seen.append(flow), idle_s=10.0, clock=lambda: now)
    silent, busy, late = ("192.0.2.10", 1), ("192.0.2.10", 2), ("192.0.2.10", 3)
    sock.datagram_received(message("silent"), silent)
    for now in range(0, 40, 4):
        sock.datagram_received(message("busy"), busy)
        assert sock.flows == (2 if now < 24 else 1)
    assert len(set(seen[1:])) == 1
    sock.datagram_received(message("late"), late)
    now = 40.0
    assert sock.flows == 2
    now = 70.0
    assert sock.flows == 0
    sock.datagram_received(message("busy"), busy)
    assert seen[-1] is not seen[1]


async def test_datagram_that_can_not_be_sent_is_logged_and_harms_nobody(start: Start, udp_peer: MakePeer) -> None:
    transports, _ = await start("udp:127.0.0.1:0")
    peer = await udp_peer()
    flow = await opened(transports, Hop("udp", *peer.address))
    with capture_logs() as logs:
        transports.send(flow, bytes(70_000))
        transports.send(flow, bytes(70_000))
        transports.send(flow, b"small enough")
        assert (await peer.get())[0] == b"small enough"
    errors = [line for line in logs if line["event"] == "udp-error"]
    assert len(errors) == 1
    assert errors[0]["reason"] == "message too long"


async def test_large_datagram_is_logged_once_per_peer(start: Start, udp_peer: MakePeer) -> None:
    transports, _ = await start("udp:127.0.0.1:0")
    peer = await udp_peer()
    flow = await opened(transports, Hop("udp", *peer.address))
    with capture_logs() as logs:
        transports.send(flow, bytes(1300))
        transports.send(flow, bytes(1301))
        transports.send(flow, bytes(1400))
    large = [line for line in logs if line["event"] == "large-datagram"]
    assert [(line["peer"], line["bytes"]) for line in large] == [(str(flow), 1301)]
    for size in (1300, 1301, 1400):
        assert len((await peer.get())[0]) == size


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_port_in_use_is_one_clear_line_and_nothing_stays_open(transport: str) -> None:
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as taken, socket.socket(socket.AF_INET, kind) as spare:
        taken.bind(("127.0.0.1", 0))
        spare.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port, free = taken.getsockname()[1], spare.getsockname()[1]
        spare.close()
        transports = Transports(Hooks())
        first, second = f"{transport}:127.0.0.1:{free}", f"{transport}:127.0.0.1:{port}"
        with pytest.raises(ListenError) as caught:
            await transports.start([parse_listener(first), parse_listener(second)])
        assert str(caught.value) == f"{second}: address already in use"
        with socket.socket(socket.AF_INET, kind) as again:
            again.bind(("127.0.0.1", free))


async def test_address_of_another_host_is_one_clear_line() -> None:
    with pytest.raises(ListenError, match=r"^udp:192\.0\.2\.1:5060: cannot assign requested address$"):
        await Transports(Hooks()).start([parse_listener("udp:192.0.2.1:5060")])
