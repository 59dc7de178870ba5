"""All of it around a real process: a call, its webhook, the pages, and what none of them may show."""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from urllib.parse import quote

import aiohttp
from aiohttp import web

from proxy.sim.openai import OpenAiConfig, OpenAiSim
from proxy.sip.message import Response
from proxy.sip.parser import parse_message
from tests.admin.test_app import Answer, ask
from tests.support.bench import OFFER
from tests.support.processes import Trunkline, free_port, running_trunkline

SECRET = "whsec_dHJ1bmtsaW5lLXRlc3Qtc2VjcmV0LTAwMDE="
TOKEN = "canary-token-of-the-dashboard"
NUMBER = "15550104477"
CANARIES = (NUMBER, "canary-api-key-4411", "Y2FuYXJ5LXNydHAta2V5LTAwMDAwMDAwMDAwMDAw", TOKEN, SECRET, "canary-identity")


class Caller:
    """A caller by UDP, whose every message holds something that must not be shown."""

    def __init__(self, port: int, number: int = 0) -> None:
        self.number = number
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(10.0)
        self.port = port
        self.here = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.to = f"<sip:+15550100001@127.0.0.1:{port}>"
        self.target = f"sip:+15550100001@127.0.0.1:{port}"

    def close(self) -> None:
        self.socket.close()

    def send(self, method: str, cseq: int, body: str = "") -> None:
        lines = [
            f"{method} {self.target} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.here};rport;branch=z9hG4bK{method}{cseq}n{self.number}",
            "Max-Forwards: 70",
            f'From: "+{NUMBER}" <sip:+{NUMBER}@{self.here}>;tag=t1',
            f"To: {self.to}",
            f"Call-ID: canary-call{self.number}@{self.here}",
            f"CSeq: {cseq} {method}",
            f"Contact: <sip:+{NUMBER}@{self.here}>",
            f"P-Asserted-Identity: <tel:+{NUMBER}>",
            "X-Twilio-CallSid: CA00000000000000000000000000000001",
            "X-Api-Key: canary-api-key-4411",
            "Identity: canary-identity.abc;info=<https://example.com/c>",
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        self.socket.sendto("\r\n".join([*lines, "", body]).encode(), ("127.0.0.1", self.port))

    def final(self, cseq: int) -> Response:
        """The final response to a request."""
        while True:
            message = parse_message(self.socket.recv(65_535))
            if isinstance(message, Response) and message.status >= 200 and message.cseq.number == cseq:
                return message

    def call(self) -> None:
        """INVITE, 200, ACK."""
        crypto = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{CANARIES[2]}\r\n"
        self.send("INVITE", 1, OFFER.replace("RTP/AVP", "RTP/SAVP") + crypto)
        answer = self.final(1)
        assert answer.status == 200
        assert answer.contact is not None
        self.to, self.target = answer.get("to") or "", answer.contact.uri_text
        self.send("ACK", 1)

    @property
    def owner(self) -> str:
        """The number of the worker that has the call."""
        return self.to.rpartition("tag=")[2][0]

    def hang_up(self) -> None:
        self.send("BYE", 2)
        assert self.final(2).status == 200


@asynccontextmanager
async def application() -> AsyncIterator[tuple[str, list[str]]]:
    """Accepts every call that it is told of; the list is filled with the base of the HTTP API by the test."""
    api: list[str] = []

    async def take(request: web.Request) -> web.Response:
        call_id = (await request.json())["data"]["call_id"]
        async with aiohttp.ClientSession() as session:
            await session.post(f"{api[0]}/v1/realtime/calls/{call_id}/accept", json={"type": "realtime", "model": "m"})
        return web.Response(status=200)

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/", api
    finally:
        await runner.cleanup()


def settings(admin: int, tap: int, url: str, store: Path, syslog: int | None = None) -> str:
    return (
        ("" if syslog is None else f"syslog: {{address: 'udp:127.0.0.1:{syslog}'}}\n")
        + f"admin: {{listen: '{admin}', token: {TOKEN}}}\n"
        f"webhook: {{listen: '{tap}', secret: '{SECRET}', forward_url: '{url}'}}\n"
        f"store: {{path: '{store}'}}\ndrain_s: 20\n"
    )


def stored_call(url: str, outcome: str) -> Answer:
    """The call's JSON, once it is stored with the answer to its webhook."""
    end = time.monotonic() + 15
    while True:
        rows = ask(url, f"/api/calls?outcome={outcome}", Authorization=f"Bearer {TOKEN}").json().get("calls", [])
        if rows:
            found = ask(url, f"/api/calls/{rows[0]['key']}", Authorization=f"Bearer {TOKEN}")
            if found.json()["attempts_made"][0]["accepted_s"] is not None:
                return found
        assert time.monotonic() < end
        time.sleep(0.1)


def look(admin: str, caller: Caller, proxy: Trunkline) -> list[str]:
    """Place the call, look at everything, drain; all that was shown."""
    assert ask(admin, "/readyz").status == 200
    caller.call()
    assert ask(admin, "/api/live", Authorization=f"Bearer {TOKEN}").json()["calls_in_progress"] == 1
    proxy.process.send_signal(signal.SIGTERM)
    end = time.monotonic() + 10
    while ask(admin, "/readyz").status != 503:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert ask(admin, "/healthz").status == 200
    answer = stored_call(admin, "open")
    call = answer.json()
    assert call["attempts_made"][0]["webhook_s"] is not None
    assert call["attempts_made"][0]["accepted_s"] is not None
    paths = [
        "/",
        "/calls",
        f"/calls/{call['key']}",
        "/diagnosis?range=1h",
        "/api/overview",
        "/api/diagnosis",
        "/metrics",
    ]
    paths += [f"/api/calls?q={quote('+' + NUMBER)}", "/api/live"]
    shown = [ask(admin, path, Authorization=f"Bearer {TOKEN}") for path in paths]
    assert [one.status for one in shown] == [200] * len(shown)
    assert len(shown[-2].json()["calls"]) == 1  # found by its whole number, which is nowhere
    metrics = shown[6].text
    assert 'trunkline_webhooks_total{result="answered"} 1.0' in metrics
    assert "trunkline_ready 0.0" in metrics
    caller.hang_up()
    return [answer.text, *[one.text for one in shown]]


def stored(directory: Path) -> list[str]:
    """What the store's files hold, but for the key."""
    return [path.read_bytes().decode("latin-1") for path in directory.glob("calls.db*") if path.suffix != ".key"]


def received(server: socket.socket) -> list[str]:
    """The datagrams that have come."""
    server.setblocking(False)
    found: list[str] = []
    with suppress(BlockingIOError):
        while True:
            found.append(server.recv(65_535).decode())
    return found


async def test_a_call_with_its_webhook_and_no_canary(tmp_path: Path) -> None:
    admin, tap = free_port(), free_port()
    syslog = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    syslog.bind(("127.0.0.1", 0))
    async with application() as (app_url, api):
        config = OpenAiConfig(
            listen=("udp:127.0.0.1:0",),
            http="127.0.0.1:0",
            webhook_url=f"http://127.0.0.1:{tap}/webhook",
            webhook_secret=SECRET,
        )
        async with OpenAiSim(config) as openai:
            api.append(openai.http_url)
            target = f"sip:proj_x@127.0.0.1:{openai.listeners[0].port};transport=udp"
            yaml = settings(admin, tap, app_url, tmp_path / "calls.db")
            yaml += f"syslog: {{address: 'udp:127.0.0.1:{syslog.getsockname()[1]}'}}\n"
            with (
                running_trunkline(tmp_path, target, "--log-level", "debug", config=yaml) as proxy,
                closing(Caller(proxy.port)) as caller,
            ):
                shown = await asyncio.to_thread(look, f"http://127.0.0.1:{admin}/", caller, proxy)
            assert NUMBER.encode() in openai.records[0].invite
    kinds = [event["event"] for event in proxy.events()]
    assert kinds.index("webhook") < kinds.index("webhook-answered") < kinds.index("call-end")
    with syslog:
        messages = received(syslog)
    assert any(' call-end - {"time":' in message for message in messages)
    shown += [proxy.output(), proxy.events_file.read_text(), *stored(tmp_path), *messages]
    for canary in CANARIES:
        assert [text[:200] for text in shown if canary in text] == [], canary
