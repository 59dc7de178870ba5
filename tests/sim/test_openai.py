"""The simulated OpenAI side: webhook, HTTP API, and its SIP side against a raw peer."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxy.sdp.session import Session
from proxy.sim.dialog import SimDialog
from proxy.sim.faults import Faults
from proxy.sim.openai import OpenAiConfig, OpenAiSim
from proxy.sim.report import Report
from proxy.sim.webhook import signature_headers
from proxy.sip.message import Header, Request, Response, header
from proxy.sip.parser import parse_message
from proxy.transaction.timers import TimerSettings

StartSim = Callable[..., Awaitable[OpenAiSim]]
Place = Callable[..., Awaitable[Report]]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WAIT_S = 5.0


class Application:
    """A user's application: takes webhooks, and calls the HTTP API with what a test wants done for each event."""

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self.client = client
        self.url = ""
        self.events: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self.act: Callable[[str], Awaitable[None]] | None = None
        self.base = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        stamp = int(headers["webhook-timestamp"])
        assert (
            headers["webhook-signature"]
            == (signature_headers(SECRET, headers["webhook-id"], stamp, body)["webhook-signature"])
        )
        event = json.loads(body)
        self.events.append(event)
        self.headers.append(headers)
        if self.act is not None:
            await self.act(event["data"]["call_id"])
        return web.Response()

    async def call(self, rtc_id: str, action: str, body: Any = None, **headers: str) -> int:
        """One request to the HTTP API."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        url = f"{self.base}/v1/realtime/calls/{rtc_id}/{action}"
        async with self.client.post(url, data=data, headers=headers) as response:
            await response.read()
            self.statuses.append(response.status)
            return response.status


@pytest.fixture
async def application() -> AsyncIterator[Application]:
    async with aiohttp.ClientSession() as client:
        made = Application(client)
        app = web.Application()
        app.router.add_post("/webhook", made.take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhook"
        yield made
        await runner.cleanup()


async def connect(start: StartSim, application: Application, **values: Any) -> OpenAiSim:
    """A simulator that tells the application of its calls and waits for its accept."""
    sim = await start(http="127.0.0.1:0", webhook_url=application.url, webhook_secret=SECRET, **values)
    application.base = sim.http_url
    return sim


async def test_a_call_waits_for_webhook_and_accept(
    start_openai: StartSim, place: Place, application: Application
) -> None:
    async def accept(rtc_id: str) -> None:
        await application.call(rtc_id, "accept", {"type": "realtime", "model": "gpt-realtime"})

    application.act = accept
    sim = await connect(start_openai, application)
    report = await place(sim, "tls")
    assert report.ok
    event = application.events[0]
    assert (event["object"], event["type"]) == ("event", "realtime.call.incoming")
    assert event["data"]["call_id"] == sim.records[0].rtc_id
    assert event["data"]["sip_media_security"] == "srtp"
    names = [item["name"] for item in event["data"]["sip_headers"]]
    assert names == [item.name for item in parse_message(sim.records[0].invite).headers]
    assert {item["value"] for item in event["data"]["sip_headers"]} >= {report.results[0].call_sid}
    assert application.headers[0]["user-agent"].startswith("OpenAI/1.0")
    assert application.headers[0]["webhook-id"].startswith("wh_")
    # The webhook is answered after the accept, so that the call may be over before its answer is in.
    assert application.statuses == [200]
    assert await eventually(lambda: sim.records[0].webhook == 200)


@pytest.mark.parametrize(("body", "status"), [({"status_code": 486}, 486), (None, 603), (b"not json", 603)])
async def test_reject(start_openai: StartSim, place: Place, application: Application, body: Any, status: int) -> None:
    async def reject(rtc_id: str) -> None:
        await application.call(rtc_id, "reject", body)

    application.act = reject
    sim = await connect(start_openai, application)
    report = await place(sim)
    assert [result.status for result in report.results] == [status]
    assert application.statuses == [200]


async def test_hangup_before_and_after_the_answer(
    start_openai: StartSim, place: Place, application: Application
) -> None:
    async def hang_up(rtc_id: str) -> None:
        await application.call(rtc_id, "hangup")

    async def accept_and_hang_up(rtc_id: str) -> None:
        await application.call(rtc_id, "accept")
        await application.call(rtc_id, "hangup")

    sim = await connect(start_openai, application)
    application.act = hang_up
    assert dict((await place(sim)).outcomes) == {"603 Decline": 1}
    application.act = accept_and_hang_up
    report = await place(sim, hang_up="callee", seed=1)
    assert [result.ended_by for result in report.results] == ["callee"]
    assert application.statuses == [200, 200, 200]


@pytest.mark.parametrize("target", ["sip:+15550100009@pbx.example.com", "tel:+15550100009"])
@pytest.mark.parametrize("lost", [False, True])
async def test_refer(start_openai: StartSim, place: Place, application: Application, target: str, lost: bool) -> None:
    async def accept_and_refer(rtc_id: str) -> None:
        await application.call(rtc_id, "accept")
        # Until the ACK is in, there is nothing to refer.
        for _ in range(200):
            if await application.call(rtc_id, "refer", {"target_uri": target}) == 200:
                return
            await asyncio.sleep(0.005)

    application.act = accept_and_refer
    sim = await connect(start_openai, application, faults=Faults(lose_refer=lost))
    report = await place(sim, hold_ms=150)
    assert report.ok, report.unexpected
    assert application.statuses[-1] == 200
    assert (report.refers, sim.records[0].refers) == ((0, 0) if lost else (1, 1))


async def test_an_invalid_accept_is_taken_and_fails(
    start_openai: StartSim, place: Place, application: Application
) -> None:
    async def accept(rtc_id: str) -> None:
        await application.call(rtc_id, "accept", {"type": "transcription"})

    application.act = accept
    sim = await connect(start_openai, application)
    assert dict((await place(sim)).outcomes) == {"400 Bad Request": 1}
    assert application.statuses == [200]


async def test_requests_that_the_api_refuses(start_openai: StartSim, application: Application) -> None:
    await connect(start_openai, application, api_key="sk-simulated")
    key = {"Authorization": "Bearer sk-simulated"}
    assert await application.call("rtc_none", "accept") == 401
    for action in ("accept", "reject", "hangup"):
        assert await application.call("rtc_none", action, **key) == 404
    assert await application.call("rtc_none", "refer", {"target_uri": "sip:a@b"}, **key) == 404
    assert await application.call("rtc_none", "refer", {"target_uri": "http://b"}, **key) == 400
    assert await application.call("rtc_none", "refer", {"target_uri": "sip:a@b\r\nX: y"}, **key) == 400
    assert await application.call("rtc_none", "reject", {"status_code": 200}, **key) == 400


async def test_the_record_by_http(start_openai: StartSim, place: Place, application: Application) -> None:
    async def accept(rtc_id: str) -> None:
        await application.call(rtc_id, "accept")

    application.act = accept
    sim = await connect(start_openai, application)
    report = await place(sim)
    async with application.client.get(f"{sim.http_url}/sim/calls") as response:
        calls = await response.json()
    assert [call["key"] for call in calls] == [report.results[0].call_sid]
    assert calls[0]["invite"].startswith("INVITE ")
    async with application.client.post(f"{sim.http_url}/sim/reset") as response:
        assert response.status == 200
    async with application.client.get(f"{sim.http_url}/sim/report") as response:
        assert (await response.json())["invites"] == 0


async def test_a_webhook_that_nobody_takes_is_on_the_record(start_openai: StartSim, place: Place) -> None:
    sim = await start_openai(webhook_url="http://127.0.0.1:9/", answer_after_ms=50)
    assert (await place(sim)).ok
    assert "ClientConnectorError" in str(sim.records[0].webhook)


async def eventually(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true in time."""
    for _ in range(round(WAIT_S / 0.005)):
        if condition():
            return True
        await asyncio.sleep(0.005)
    return False


class Peer(asyncio.DatagramProtocol):
    """A raw UDP peer: sends what a test says, and keeps what comes."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.address = ""

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.inbox.put_nowait(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        host, port = transport.get_extra_info("sockname")[:2]
        self.address = f"{host}:{port}"

    def send(self, message: Request | bytes) -> None:
        data = message if isinstance(message, bytes) else message.serialize()
        self.transport.sendto(data)  # type: ignore[attr-defined]

    async def next(self) -> Request | Response:
        async with asyncio.timeout(WAIT_S):
            return parse_message(await self.inbox.get())

    async def next_status(self, *skip: int) -> Response:
        """The next response whose status is none of `skip`."""
        while True:
            message = await self.next()
            if isinstance(message, Response) and message.status not in skip:
                return message

    def via(self, branch: str) -> Header:
        return header("Via", f"SIP/2.0/UDP {self.address};branch=z9hG4bK{branch}")

    def request(self, method: str, body: bytes = b"", to: str = "<sip:proj@openai.example>") -> Request:
        lines = [
            self.via(method),
            header("Max-Forwards", "70"),
            header("From", "<sip:caller@a.example>;tag=me"),
            header("To", to),
            header("Call-ID", "raw@a.example"),
            header("CSeq", f"7 {method}"),
            header("Contact", f"<sip:caller@{self.address}>"),
        ]
        if body:
            lines.append(header("Content-Type", "application/sdp"))
        return Request(method, "sip:proj@openai.example", [*lines, header("Content-Length", str(len(body)))], body)


@pytest.fixture
async def connect_peer() -> AsyncIterator[Callable[[OpenAiSim], Awaitable[Peer]]]:
    transports = []

    async def open_peer(sim: OpenAiSim) -> Peer:
        port = next(listen.port for listen in sim.listeners if listen.transport == "udp")
        loop = asyncio.get_running_loop()
        transport, peer = await loop.create_datagram_endpoint(Peer, remote_addr=("127.0.0.1", port))
        transports.append(transport)
        return peer

    yield open_peer
    for transport in transports:
        transport.close()


ConnectPeer = Callable[[OpenAiSim], Awaitable[Peer]]
OFFER = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"


async def test_the_200_is_written_like_the_real_one(start_openai: StartSim, connect_peer: ConnectPeer) -> None:
    sim = await start_openai(contact_host="sip.api.openai.com:5061")
    peer = await connect_peer(sim)
    peer.send(peer.request("INVITE", OFFER))
    response = await peer.next_status(100)
    assert [item.name for item in response.headers] == [
        "Via",
        "From",
        "To",
        "Call-ID",
        "CSeq",
        "Content-Length",
        "Contact",
    ]
    assert response.get("contact") == "<sip:OAI@sip.api.openai.com:5061>"
    assert Session.parse(response.body).session_name == "OAI"


async def test_a_200_is_repeated_until_the_ack(start_openai: StartSim, connect_peer: ConnectPeer) -> None:
    sim = await start_openai()
    peer = await connect_peer(sim)
    invite = peer.request("INVITE", OFFER)
    peer.send(invite)
    first = await peer.next_status(100)
    assert (await peer.next()).serialize() == first.serialize()
    assert (await peer.next()).serialize() == first.serialize()
    peer.send(SimDialog.as_uac(invite, first).request("ACK", 7, [peer.via("ack")]))
    assert await eventually(lambda: sim.records[0].acked)
    while not peer.inbox.empty():
        peer.inbox.get_nowait()
    await asyncio.sleep(0.2)
    assert peer.inbox.empty()


async def test_a_200_without_ack_is_ended_by_bye(start_openai: StartSim, connect_peer: ConnectPeer) -> None:
    sim = await start_openai(timers=TimerSettings(t1_s=0.005, t2_s=0.02, t4_s=0.02))
    peer = await connect_peer(sim)
    peer.send(peer.request("INVITE", OFFER))
    message: Request | Response = await peer.next()
    while isinstance(message, Response):
        message = await peer.next()
    assert (message.method, message.uri, message.to.tag) == ("BYE", f"sip:caller@{peer.address}", "me")
    assert sim.report()["unacked"] == ["raw@a.example"]
    # The peer does not answer the BYE either.
    assert await eventually(lambda: sim.records[0].ended_by == "lost")


async def test_a_late_offer_is_answered_in_the_ack(start_openai: StartSim, connect_peer: ConnectPeer) -> None:
    sim = await start_openai()
    peer = await connect_peer(sim)
    invite = peer.request("INVITE")
    peer.send(invite)
    response = await peer.next_status(100)
    assert Session.parse(response.body).media[0].formats == ["0", "101"]
    dialog = SimDialog.as_uac(invite, response)
    extra = (("Content-Type", "application/sdp"),)
    peer.send(dialog.request("ACK", 7, [peer.via("ack")], extra, OFFER))
    assert await eventually(lambda: sim.records[0].acked)
    assert sim.records[0].answer_in_ack


async def test_requests_in_the_dialog(start_openai: StartSim, connect_peer: ConnectPeer) -> None:
    sim = await start_openai()
    peer = await connect_peer(sim)
    invite = peer.request("INVITE", OFFER)
    peer.send(invite)
    first = await peer.next_status(100)
    dialog = SimDialog.as_uac(invite, first)
    peer.send(dialog.request("ACK", 7, [peer.via("ack")]))
    assert await eventually(lambda: sim.records[0].acked)

    async def ask(method: str, body: bytes = b"", seq: int | None = None) -> Response:
        number = dialog.next_seq() if seq is None else seq
        extra = (("Contact", f"<sip:caller@{peer.address}>"),) if method == "INVITE" else ()
        peer.send(dialog.request(method, number, [peer.via(f"{method}{number}")], extra, body))
        return await peer.next_status()

    assert [(await ask(method)).status for method in ("OPTIONS", "INFO", "UPDATE")] == [200, 200, 405]
    assert (await ask("OPTIONS", seq=1)).status == 500
    answer = await ask("INVITE", OFFER)
    versions = [int(Session.parse(body).origin_version or "") for body in (first.body, answer.body)]
    assert (answer.status, versions[1] - versions[0]) == (200, 1)
    peer.send(dialog.request("ACK", dialog.local_seq, [peer.via("ack2")]))
    refused = await ask("INVITE", OFFER.replace(b"AVP 0", b"AVP 18"))
    assert refused.status == 488
    assert (await ask("BYE")).status == 200
    assert (sim.records[0].ended_by, sim.records[0].reinvites_received) == ("caller", 1)
    assert (await ask("BYE")).status == 481


async def test_requests_outside_of_any_dialog(start_openai: StartSim, connect_peer: ConnectPeer) -> None:
    peer = await connect_peer(await start_openai())
    for method, to, status in (
        ("OPTIONS", "<sip:a@b>", 200),
        ("REGISTER", "<sip:a@b>", 405),
        ("BYE", "<sip:a@b>;tag=none", 481),
        ("CANCEL", "<sip:a@b>", 481),
    ):
        peer.send(peer.request(method, to=to))
        assert (await peer.next_status()).status == status


async def test_broken_messages(start_openai: StartSim, connect_peer: ConnectPeer) -> None:
    sim = await start_openai()
    peer = await connect_peer(sim)
    peer.send(b"\r\n\r\n")
    peer.send(b"nonsense")
    peer.send(peer.request("INVITE", b"v=1\r\n"))
    assert (await peer.next_status()).reason == "Invalid SDP offer"
    peer.send(peer.request("OPTIONS").serialize().replace(b"CSeq: 7 OPTIONS", b"CSeq: 7 INFO"))
    assert (await peer.next_status()).status == 400
    peer.send(peer.request("OPTIONS").serialize().replace(b"Content-Length: 0", b"Content-Length: x"))
    assert (await peer.next_status()).status == 400
    assert sim.endpoint.traffic.malformed_received == 3


async def test_a_reset_is_seen_as_one(start_openai: StartSim, connect_peer: ConnectPeer) -> None:
    sim = await start_openai(faults=Faults(reset=1.0))
    peer = await connect_peer(sim)
    port = next(listen.port for listen in sim.listeners if listen.transport == "tcp")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(peer.request("INVITE", OFFER).serialize())
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_keep_alives_are_answered(start_openai: StartSim) -> None:
    sim = await start_openai()
    port = next(listen.port for listen in sim.listeners if listen.transport == "tcp")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\r\n\r\n")
    assert await reader.readexactly(2) == b"\r\n"
    writer.write(b"OPTIONS sip:a SIP/2.0\r\nContent-Length: x\r\n\r\n")
    assert await reader.read() == b""
    writer.close()


async def test_an_address_in_use_is_named(start_openai: StartSim) -> None:
    sim = await start_openai()
    for text in (str(listen) for listen in sim.listeners):
        with pytest.raises(OSError, match=f"{text}: .*in use"):
            await start_openai(listen=(text,))
    first = await start_openai(http="127.0.0.1:0")
    with pytest.raises(OSError, match="http:127"):
        await start_openai(http=first.http_url.removeprefix("http://"))


@pytest.mark.parametrize(
    "values",
    [
        {"listen": ("sctp:127.0.0.1:5060",)},
        {"listen": ("udp:127.0.0.1",)},
        {"listen": ("udp:127.0.0.1:99999",)},
        {"webhook_secret": "secret"},
        {"key": "x"},
    ],
)
def test_impossible_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        OpenAiSim(OpenAiConfig(**values))
