"""Twilio's INVITE over TLS through `trunkline run` to the simulated OpenAI side, and its 200 back."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

from proxy.audit.records import Change, replay
from proxy.sdp.offer_answer import check_answer
from proxy.sdp.session import Session
from proxy.sim.certificates import make_certificate
from proxy.sim.openai import OpenAiConfig, OpenAiSim
from proxy.sip.message import Request, Response
from proxy.sip.parser import StreamFramer, parse_message
from tests.support.processes import Trunkline, free_port, running_trunkline

INVITE = Path(__file__).parent / "data" / "twilio_invite.sip"
NAMES = ("localhost", "127.0.0.1")


class TlsCaller:
    """A bare TLS connection that speaks SIP as text."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.framer = StreamFramer()
        self.waiting: list[bytes] = []

    @classmethod
    async def connect(cls, port: int, ca_file: Path) -> TlsCaller:
        context = ssl.create_default_context(cafile=str(ca_file))
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost"))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def message(self) -> Request | Response:
        while not self.waiting:
            data = await asyncio.wait_for(self.reader.read(65536), 10)
            assert data, "connection closed"
            self.waiting += self.framer.feed(data)
        return parse_message(self.waiting.pop(0))

    def in_dialog(self, method: str, ok: Response, invite: Request, cseq: int) -> bytes:
        """A request in the dialog, as Twilio routes it: by the Record-Route set, to our Contact."""
        assert ok.contact is not None
        lines = [
            f"{method} {ok.contact.uri_text} SIP/2.0",
            f"Via: SIP/2.0/TLS 192.0.2.10:5061;branch=z9hG4bK{method}",
            "Max-Forwards: 69",
            f"From: {invite.get('from')}",
            f"To: {ok.get('to')}",
            f"Call-ID: {invite.call_id}",
            f"CSeq: {cseq} {method}",
            'Reason: Q.850;cause=16;text="Normal call clearing"',
            "Content-Length: 0",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def test_the_invite_of_the_field_notes(tmp_path: Path) -> None:
    ours = make_certificate(tmp_path / "ours", NAMES)
    theirs = make_certificate(tmp_path / "theirs", NAMES)
    port = free_port()
    data = INVITE.read_bytes().replace(b"\n", b"\r\n")
    invite = parse_message(data)
    assert isinstance(invite, Request)
    config = OpenAiConfig(certificate=theirs.certificate, key=theirs.key, answer_after_ms=20, ringing_after_ms=5)
    async with OpenAiSim(config) as openai:
        tls_port = openai.listeners[0].port
        with running_trunkline(
            tmp_path,
            f"sip:proj_x@localhost:{tls_port};transport=tls",
            *(
                "--listen",
                f"tls:127.0.0.1:{port}",
                "--tls-certificate",
                str(ours.certificate),
                "--tls-key",
                str(ours.key),
            ),
            *("--tls-ca", str(theirs.ca_file)),
            port=port,
            config="redaction: {mask_numbers: false, mask_secrets: false}\n",
        ) as proxy:
            caller = await TlsCaller.connect(port, ours.ca_file)
            caller.send(data)
            answers = [await caller.message()]
            while isinstance(answers[-1], Response) and answers[-1].status < 200:
                answers.append(await caller.message())
            ok = answers[-1]
            assert isinstance(ok, Response)
            caller.send(caller.in_dialog("ACK", ok, invite, 29044))
            caller.send(caller.in_dialog("BYE", ok, invite, 29045))
            goodbye = await caller.message()
            ends = await asyncio.to_thread(proxy.wait_for, "call-end", 1)
            caller.writer.close()
            await caller.writer.wait_closed()
        record = openai.records[0]
    received = record.invite
    check_what_openai_got(received)
    check_what_twilio_got(ok, invite)
    check_the_log(proxy, received, data)
    assert [answer.status for answer in answers if isinstance(answer, Response)] == [100, 180, 200]
    assert isinstance(goodbye, Response)
    assert (goodbye.status, goodbye.cseq.method) == (200, "BYE")
    assert ends[0]["outcome"] == "answered"
    assert record.acked


def check_what_openai_got(received: bytes) -> None:
    message = parse_message(received)
    assert isinstance(message, Request)
    text = received.decode()
    assert message.uri.startswith("sip:proj_x@localhost")
    for gone in ("Record-Route", "twilio.example", "172.25.75.240", "172.18.165.214", "192.0.2.10", "edge.example.com"):
        assert gone not in text, gone
    for key in ("contact", "from", "to", "p-asserted-identity", "diversion"):
        for value in message.get_all(key):
            names = [part.partition("=")[0] for part in value.replace(">", ";").split(";")[1:] if part]
            assert len(names) == len(set(names)), value
    assert len(message.get_all("via")) == 1
    assert message.get("x-twilio-callsid") == "CA00000000000000000000000000000000"
    assert message.from_.uri.user == "+15550100002"
    assert message.to.uri.user == "+15550100001"
    assert "+15550100002" in (message.get("p-asserted-identity") or "")
    assert "+15550100001" in (message.get("diversion") or "")
    assert message.get("max-forwards") == "59"
    assert message.get("x-trunkline-call-id")
    assert message.get("x-trunkline-attempt") == "1"


def check_what_twilio_got(ok: Response, invite: Request) -> None:
    assert ok.content_type == "application/sdp"
    assert ok.get_all("record-route") == invite.get_all("record-route")
    assert [value.partition(";")[0] for value in ok.get_all("via")] == [
        value.partition(";")[0] for value in invite.get_all("via")
    ]
    assert ok.get("cseq") == "29044 INVITE"
    assert ok.contact is not None
    assert ok.contact.uri.host == "127.0.0.1"
    assert check_answer(Session.parse(ok.body), Session.parse(invite.body)) == []


def check_the_log(proxy: Trunkline, received: bytes, sent: bytes) -> None:
    """For each message that crossed: what came in, with the recorded changes applied, is what went out."""
    messages = [event for event in proxy.events() if event["event"] == "message"]
    crossed = [event for event in messages if "changes" in event]
    starts = [event["message"].partition("\r\n")[0] for event in crossed]
    assert [start.split()[0] if "SIP/2.0 " not in start[:8] else start[8:11] for start in starts] == [
        "INVITE",
        "180",
        "200",
        "BYE",
    ]
    first_in = next(event for event in messages if event["leg"] == "a" and event["direction"] == "in")
    assert first_in["message"].encode() == sent
    assert crossed[0]["message"].encode() == received
    for event in crossed:
        origin = source_of(event, messages)
        head, _, body = origin["message"].partition("\r\n\r\n")
        start, *headers = head.split("\r\n")
        changes = [
            Change(*[change[name] for name in ("step", "part", "index", "before", "after")])
            for change in event["changes"]
        ]
        new_start, new_headers, new_body = replay(start, headers, body.encode(), changes)
        assert "\r\n".join([new_start, *new_headers, "", ""]).encode() + new_body == event["message"].encode()


def source_of(event: dict[str, Any], messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The message of the other leg that this one was made from: the last of its kind that came in there before it."""
    start = event["message"].partition("\r\n")[0]
    kind = start[8:11] if start.startswith("SIP/2.0") else start.split()[0]
    method = next(line for line in event["message"].split("\r\n") if line.startswith("CSeq:")).split()[-1]
    found = None
    for other in messages:
        if other is event:
            break
        first = other["message"].partition("\r\n")[0]
        other_kind = first[8:11] if first.startswith("SIP/2.0") else first.split()[0]
        if (
            other["direction"] == "in"
            and other["leg"] != event["leg"]
            and other_kind == kind
            and f" {method}\r\n" in other["message"]
        ):
            found = other
    assert found is not None
    return found
