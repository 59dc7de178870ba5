"""The webhook tap: a real application behind it, real signatures, and the calls that it tells of."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from multidict import CIMultiDict

from proxy.admin.server import Site, WebThread
from proxy.admin.sockets import bind
from proxy.admin.webhook import TapSettings, Webhook, create_tap
from proxy.b2bua.config import RetryPolicy
from proxy.sim.webhook import signature_headers
from proxy.sip.message import Request
from tests.support.bench import ANSWER, Bench
from tests.support.processes import free_port

SECRET = "whsec_dHJ1bmtsaW5lLXRlc3Qtc2VjcmV0LTAwMDE="


class Application:
    """What the customer runs: records what comes, answers as told."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, dict[str, str]]] = []
        self.statuses: list[int] = []
        self.delay_s = 0.0
        self.together = 0
        self.released = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        self.seen.append((await request.read(), dict(request.headers)))
        await asyncio.sleep(self.delay_s)
        if len(self.seen) >= self.together:
            self.released.set()
        await self.released.wait()
        status = self.statuses.pop(0) if self.statuses else 202
        return web.Response(status=status, body=b"taken", headers={"X-App": "yes", "Content-Type": "text/x-app"})


class Told:
    """What the tap has told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, int, dict[str, object]]] = []

    def __call__(self, event: str, call_id: str, attempt: int, fields: dict[str, object]) -> None:
        self.events.append((event, call_id, attempt, fields))


@asynccontextmanager
async def serving(application: Application, port: int = 0) -> AsyncIterator[str]:
    """Run an application; gives its URL."""
    app = web.Application()
    app.router.add_post("/hook", application.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def tapped(forward: str | None = "", **options: Any) -> AsyncIterator[tuple[str, Application, Told]]:
    """The tap before an application, or before what `forward` names. Gives the tap's URL."""
    application, told = Application(), Told()
    async with serving(application) as served:
        settings = TapSettings("/webhook", SECRET, served if forward == "" else forward, **options)
        site = Site("webhook", create_tap(Webhook(settings, told)), bind("127.0.0.1", 0))
        thread = WebThread([site])
        thread.start()
        try:
            yield f"{site.url}webhook", application, told
        finally:
            await asyncio.to_thread(thread.stop)


def event_body(call: str = "call1", attempt: str = "2") -> bytes:
    headers = [{"name": "X-Trunkline-Call-ID", "value": call}, {"name": "X-Trunkline-Attempt", "value": attempt}]
    data = {"call_id": "rtc_1", "sip_headers": [{"name": "From", "value": "sip:+15550100002@x"}, *headers]}
    # White space of its own: what is forwarded must be these very bytes.
    return orjson.dumps({"id": "evt_1", "type": "realtime.call.incoming", "data": data}, option=orjson.OPT_INDENT_2)


def signed(body: bytes, when: float | None = None) -> dict[str, str]:
    return {
        **signature_headers(SECRET, "wh_1", int(time.time() if when is None else when), body),
        "Content-Type": "application/json",
        "User-Agent": "OpenAI/1.0",
    }


async def post(url: str, body: bytes | BytesIO, headers: dict[str, str]) -> tuple[int, bytes, CIMultiDict[str]]:
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
    ):
        return answer.status, await answer.read(), answer.headers.copy()


async def test_a_webhook_passes_untouched() -> None:
    async with tapped() as (url, application, told):
        body = event_body()
        headers = signed(body)
        status, text, answered = await post(url, body, headers)
        assert (status, text, answered["X-App"], answered["Content-Type"]) == (202, b"taken", "yes", "text/x-app")
        [(seen, passed)] = application.seen
        assert seen == body
        lower = {name.lower(): value for name, value in passed.items()}
        assert all(lower[name.lower()] == value for name, value in headers.items())
    assert [(kind, call, attempt) for kind, call, attempt, _ in told.events] == [
        ("arrived", "call1", 2),
        ("answered", "call1", 2),
    ]
    assert told.events[0][3] == {
        "webhook_id": "wh_1",
        "type": "realtime.call.incoming",
        "openai_call_id": "rtc_1",
    }
    assert told.events[1][3]["status"] == 202
    assert "15550100002" not in repr(told.events)


@pytest.mark.parametrize("fault", ["body", "signature", "old", "missing"])
async def test_what_is_not_signed_is_refused(fault: str) -> None:
    async with tapped() as (url, application, told):
        body = event_body()
        headers = signed(body, time.time() - 3600 if fault == "old" else None)
        if fault == "signature":
            headers["webhook-signature"] = "v1,AAAA"
        elif fault == "missing":
            del headers["webhook-signature"]
        status, _, _ = await post(url, body + b" " if fault == "body" else body, headers)
        assert status == 401
        assert application.seen == []
    assert [event[0] for event in told.events] == ["refused"]


async def test_a_gateway_that_fails_is_tried_again() -> None:
    async with tapped() as (url, application, told):
        application.statuses = [503, 502]
        body = event_body()
        assert (await post(url, body, signed(body)))[0] == 202
        assert len(application.seen) == 3
    assert told.events[1][3]["tries"] == 3


async def test_an_application_that_is_started_meanwhile() -> None:
    """It is down when the webhook comes, and up before the deadline."""
    port = free_port()
    async with tapped(f"http://127.0.0.1:{port}/hook") as (url, application, told):
        body = event_body()
        sent = asyncio.create_task(post(url, body, signed(body)))
        await asyncio.sleep(0.2)
        assert not sent.done()
        async with serving(application, port):
            assert (await sent)[0] == 202
        assert application.seen[0][0] == body
    assert told.events[1][3]["tries"] in (2, 3, 4, 5)


async def test_one_that_comes_twice_passes_twice_and_the_record_says_so() -> None:
    async with tapped() as (url, application, told):
        body = event_body()
        headers = signed(body)
        assert [(await post(url, body, headers))[0] for _ in range(2)] == [202, 202]
        assert len(application.seen) == 2
    assert [event[3].get("again") for event in told.events] == [None, None, True, True]


async def test_what_is_too_large_is_refused_and_on_record() -> None:
    async with tapped() as (url, application, told):
        body = b"x" * (1024 * 1024 + 1)
        status, _, _ = await post(url, BytesIO(body), signed(body))
        assert status == 413
        assert application.seen == []
    assert [event[0] for event in told.events] == ["refused"]
    assert told.events[0][3]["why"] == "more than 1048576 bytes"


async def test_none_waits_for_another_one() -> None:
    """An application that answers the first one only when it has all of them."""
    async with tapped(deadline_s=30.0) as (url, application, told):
        application.together = 150
        body = event_body()
        sent = [asyncio.create_task(post(url, body, signed(body))) for _ in range(150)]
        assert {(await one)[0] for one in sent} == {202}
    assert len(told.events) == 300


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\nX-App: a\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
        b"Content-Length: 4\r\n\r\n\x1f\x8b\0\xff",
        b"HTTP/1.1 418 Teapot\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\nX-App: \xc3\xa4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ],
    ids=["204", "302", "compressed", "chunked"],
)
async def test_request_and_answer_are_the_same_bytes(answer: bytes) -> None:
    """An application that writes its answer by hand, and keeps the very bytes that it gets."""
    got = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        got.extend(head + await reader.readexactly(size))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, tapped(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?x=1") as (url, _, _):
        body = event_body()
        headers = {**signed(body), "X-Odd": "ä; q=1", "Cookie": "c=1"}
        status, text, answered = await post(url, body, headers)
    head, _, sent = bytes(got).partition(b"\r\n\r\n")
    assert sent == body
    names = {line.partition(b":")[0].decode().lower() for line in head.split(b"\r\n")[1:]}
    # The client of this test sends two of its own.
    own = {"host", "content-length", "accept", "accept-encoding"}
    assert names == {name.lower() for name in headers} | own
    assert "x-odd: ä; q=1".encode() in head
    first, _, rest = answer.partition(b"\r\n")
    assert status == int(first.split()[1])
    for line in rest.partition(b"\r\n\r\n")[0].decode().split("\r\n"):
        name, _, value = line.partition(": ")
        if name != "Transfer-Encoding":
            assert value in answered.getall(name)
    assert text == {204: b"", 302: b"", 200: b"\x1f\x8b\0\xff", 418: b"abc"}[status]


async def test_an_answer_of_the_application_is_final() -> None:
    async with tapped() as (url, application, _):
        application.statuses = [500]
        body = event_body()
        assert (await post(url, body, signed(body)))[0] == 500
        assert len(application.seen) == 1


async def test_an_application_that_is_not_there() -> None:
    async with tapped("http://127.0.0.1:1/hook", attempts=2) as (url, _, told):
        body = event_body()
        assert (await post(url, body, signed(body)))[0] == 502
    assert told.events[1][3]["tries"] == 2
    assert "why" in told.events[1][3]


async def test_the_deadline_holds() -> None:
    async with tapped(deadline_s=0.3) as (url, application, told):
        application.delay_s = 5.0
        body = event_body()
        started = time.monotonic()
        assert (await post(url, body, signed(body)))[0] == 504
        assert time.monotonic() - started < 3.0
    assert told.events[1][3]["why"] == "no answer in 0.3 s"


async def test_without_an_application_the_tap_answers() -> None:
    async with tapped(None) as (url, _, told):
        body = event_body("", "x")
        assert (await post(url, body, signed(body)))[0] == 200
    assert [(kind, call, attempt) for kind, call, attempt, _ in told.events] == [("arrived", "", 0)]


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"data": 5}', b'{"data": {"sip_headers": [5, {"name": 1}]}}'])
async def test_odd_bodies_pass_too(body: bytes) -> None:
    async with tapped() as (url, application, told):
        assert (await post(url, body, signed(body)))[0] == 202
        assert application.seen[0][0] == body
    assert told.events[0][:3] == ("arrived", "", 0)


# What the stack makes of it


def waiting(**policy: Any) -> Bench:
    retry = RetryPolicy(no_webhook_after_s=3.0, backoff_initial_s=0.2, jitter=0.0, **policy)
    bench = Bench(retry=retry)
    bench.stack.webhooks.arrived("", 0, {"type": "t"}, bench.now)  # webhooks pass by us
    bench.perform()
    bench.invite()
    bench.respond(100)
    return bench


def call_of(bench: Bench) -> str:
    return next(event.call for event in bench.events if event.kind == "call-start")


def test_an_attempt_without_its_webhook_is_given_up() -> None:
    bench = waiting()
    bench.advance(2.9)
    assert len(bench.invites) == 1
    bench.advance(0.4)
    assert bench.target_saw[:2] == ["INVITE", "CANCEL"]
    assert len({invite.call_id for invite in bench.invites}) == 2
    [end] = [event for event in bench.events if event.kind == "attempt-end"]
    assert (end.fields["cause"], end.fields["detail"]) == ("timeout", "no webhook in 3 s")


def test_with_its_webhook_it_may_take_its_time() -> None:
    bench = waiting()
    bench.advance(1.0)
    bench.stack.webhooks.arrived(call_of(bench), 1, {"type": "t"}, bench.now)
    bench.perform()
    bench.advance(4.0)
    assert len(bench.invites) == 1
    bench.respond(200, "OK", body=ANSWER)
    bench.stack.webhooks.answered(call_of(bench), 1, {"status": 200}, bench.now)
    bench.perform()
    assert [(event.call, event.attempt) for event in bench.events if event.kind.startswith("webhook")][1:] == [
        (call_of(bench), 1)
    ] * 2


def test_the_webhook_of_an_earlier_attempt_is_none_of_this_one() -> None:
    bench = waiting()
    bench.advance(3.3)
    assert len({invite.call_id for invite in bench.invites}) == 2
    second = bench.invites[-1]
    assert isinstance(second, Request)
    bench.respond(100, request=second)
    bench.stack.webhooks.arrived(call_of(bench), 1, {}, bench.now)
    bench.perform()
    bench.advance(3.6)
    assert len({invite.call_id for invite in bench.invites}) == 3


@pytest.mark.parametrize(
    "policy", [{"max_attempts": 1}, {"on_timeout": False}, {"deadline_s": 4.0, "answer_timeout_s": 60.0}]
)
def test_no_attempt_is_given_up_when_none_can_follow(policy: dict[str, Any]) -> None:
    bench = waiting(**policy)
    bench.advance(3.5)
    assert bench.target_saw == ["INVITE"]


def test_a_tap_that_never_saw_a_webhook_gives_nothing_up() -> None:
    bench = Bench(retry=RetryPolicy(no_webhook_after_s=1.0))
    bench.invite()
    bench.respond(100)
    bench.advance(5.0)
    assert bench.target_saw == ["INVITE"]


def test_webhooks_of_unknown_calls_belong_to_none() -> None:
    bench = Bench()
    bench.stack.webhooks.arrived("x" * 500, 1, {"type": "t"}, bench.now)
    bench.stack.webhooks.answered("nobody", 1, {"status": 200}, bench.now)
    bench.stack.webhooks.refused("", 0, {"why": "unsigned"}, bench.now)
    bench.perform()
    assert [event.call for event in bench.events] == ["", "", ""]
    assert bench.events[0].fields["for_call"] == "x" * 64
