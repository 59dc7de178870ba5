"""The OpenAI side, simulated: a SIP endpoint that answers as `sip.api.openai.com` was seen to answer.

It holds the 200 until the application accepts over HTTP (or for a fixed time), fires the signed webhook, and shows the
door's real defects on demand (`faults.Faults`). The HTTP API is that of
developers.openai.com/api/docs/guides/realtime-sip.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from proxy.sdp.errors import SdpError
from proxy.sdp.session import Session
from proxy.sim.certificates import make_certificate
from proxy.sim.endpoint import Endpoint, Listen, parse_listen, server_context
from proxy.sim.faults import FaultPlan, Faults
from proxy.sim.media import Origin, sdes_key
from proxy.sim.openai_call import OpenAiCall
from proxy.sim.records import CallRecord, Records
from proxy.sim.webhook import USER_AGENT, check_secret, event_body, signature_headers
from proxy.sip.flow import Flow
from proxy.sip.message import Request, Response
from proxy.sip.respond import make_response
from proxy.transaction.server import ServerTransaction
from proxy.transaction.timers import TimerSettings

if TYPE_CHECKING:
    import aiohttp

    from proxy.sim.openai_http import HttpApi

__all__ = ["OpenAiConfig", "OpenAiSim"]

_WEBHOOK_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAiConfig:
    """How the simulated OpenAI side behaves.

    Attributes:
        listen: listeners as `transport:address:port`; port 0 takes a free one.
        certificate, key: PEM files for TLS. Without them a certificate of our own is made, and written with its CA to
            `certificate_dir` (a directory of its own in the system's place for such, when None).
        certificate_names: host names and addresses of a certificate of our own.
        http: `address:port` of the HTTP API; None for none.
        api_key: the bearer token that the HTTP API demands; None for none.
        webhook_url: where the webhook goes; None for nowhere.
        webhook_secret: `whsec_…`, signs the webhook.
        webhook_type: "realtime.call.incoming", or "live.transport.incoming" for GPT-Live.
        answer_after_ms: accept that long after the webhook, without HTTP; None waits for the HTTP accept.
        accept_timeout_ms: an INVITE without accept in that time ends in 400.
        ringing_after_ms: send 180 then; None for never.
        call_ms: hang up that long after the ACK; None leaves it to the caller.
        reinvite_after_ms: send a re-INVITE that long after the ACK; None for never.
        contact_host: `host[:port]` of our Contact; None takes the listener's address.
        media_address: the address in our session descriptions.
        codecs: voice codecs that we take.
        faults: the defects to show.
        timers: T1, T2, T4.
        max_records: how many call records are kept.
    """

    listen: tuple[str, ...] = ("tls:127.0.0.1:0",)
    certificate: Path | None = None
    key: Path | None = None
    certificate_dir: Path | None = None
    certificate_names: tuple[str, ...] = ("sip.api.openai.com", "localhost", "127.0.0.1", "::1")
    http: str | None = None
    api_key: str | None = None
    webhook_url: str | None = None
    webhook_secret: str | None = None
    webhook_type: str = "realtime.call.incoming"
    answer_after_ms: float | None = None
    accept_timeout_ms: float = 10_000
    ringing_after_ms: float | None = None
    call_ms: float | None = None
    reinvite_after_ms: float | None = None
    contact_host: str | None = None
    media_address: str = "127.0.0.1"
    codecs: tuple[str, ...] = ("PCMU", "PCMA", "opus")
    faults: Faults = field(default_factory=Faults)
    timers: TimerSettings = field(default_factory=TimerSettings)
    max_records: int = 100_000


class OpenAiSim:
    """The simulated OpenAI side. Use as an asynchronous context manager, or by `start` and `stop`.

    Attributes:
        endpoint: its SIP endpoint, with traffic counters.
        listeners: where it really listens.
        http_url: base of the HTTP API, "" without one.
        ca_file: the CA of a certificate of our own, else None.
    """

    def __init__(self, config: OpenAiConfig) -> None:
        if config.webhook_secret is not None:
            check_secret(config.webhook_secret)
        if (config.certificate is None) != (config.key is None):
            raise ValueError("a certificate needs its key, and a key its certificate")
        self.config = config
        self.endpoint = Endpoint(self, config.timers)
        self.listeners: list[Listen] = []
        self.http_url = ""
        self.ca_file: Path | None = None
        self._listen = [parse_listen(text) for text in config.listen]
        self._plan = FaultPlan(config.faults)
        self._records = Records(config.max_records)
        self._random = random.Random(secrets.randbits(64))
        self._calls: dict[str, OpenAiCall] = {}
        self._dialogs: dict[tuple[str, str], OpenAiCall] = {}
        self._webhooks: set[asyncio.Task[None]] = set()
        self._client: aiohttp.ClientSession | None = None
        self._http: HttpApi | None = None
        self._made_dir: tempfile.TemporaryDirectory[str] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. Raises OSError for an address in use, ValueError for unusable files; nothing is left open then."""
        try:
            context = None
            if any(listen.transport == "tls" for listen in self._listen):
                certificate, key = self._certificate()
                context = server_context(str(certificate), str(key))
            for listen in self._listen:
                self.listeners.append(await self.endpoint.listen(listen, context))
            if self.config.http is not None:
                from proxy.sim.openai_http import HttpApi

                self._http = HttpApi(self)
                self.http_url = await self._http.start(self.config.http)
            if self.config.webhook_url is not None:
                from aiohttp import ClientSession, ClientTimeout

                self._client = ClientSession(timeout=ClientTimeout(total=_WEBHOOK_TIMEOUT_S))
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close everything at once; calls in progress are dropped without a word."""
        for task in list(self._webhooks):
            task.cancel()
        await asyncio.gather(*self._webhooks, return_exceptions=True)
        if self._client is not None:
            await self._client.close()
            self._client = None
        if self._http is not None:
            await self._http.stop()
            self._http = None
        await self.endpoint.stop()
        if self._made_dir is not None:
            self._made_dir.cleanup()
            self._made_dir = None

    def uri(self, transport: str = "tls", user: str = "proj_simulated") -> str:
        """A SIP URI of the first listener of a transport. Raises LookupError when there is none."""
        for listen in self.listeners:
            if listen.transport == transport:
                suffix = "" if transport == "udp" else f";transport={transport}"
                return f"sip:{user}@{str(listen).partition(':')[2]}{suffix}"
        raise LookupError(f"no {transport} listener")

    @property
    def records(self) -> list[CallRecord]:
        """One record for each INVITE that began a call, in order."""
        return self._records.all

    @property
    def invites(self) -> int:
        """How many INVITEs began a call."""
        return len(self._records.all) + self._records.dropped

    @property
    def calls_in_progress(self) -> int:
        """Calls that wait, ring or talk."""
        return len(self._calls)

    def reset(self) -> None:
        """Forget the records, not the calls in progress."""
        self._records.clear()

    def report(self) -> dict[str, Any]:
        """What was seen so far; see `records.Records.report`."""
        return {
            **self._records.report(),
            "calls_in_progress": self.calls_in_progress,
            "traffic": self.endpoint.traffic.to_dict(),
            "transactions": self.endpoint.layer.tables(),
        }

    def find(self, rtc_id: str) -> OpenAiCall | None:
        """The call in progress with this id."""
        return self._calls.get(rtc_id)

    # What the transaction layer calls.

    def on_request(self, tx: ServerTransaction, now: float) -> None:
        """A request: a new call, something in a dialog, or OPTIONS."""
        request = tx.request
        tag = request.to.tag
        if tag is not None:
            call = self._dialogs.get((request.call_id, tag))
            if call is not None:
                call.on_request(tx)
            else:
                self._respond(tx, 481)
        elif tx.method == "INVITE":
            self._on_invite(tx, now)
        else:
            self._respond(tx, 200 if tx.method == "OPTIONS" else 405)

    def on_ack(self, request: Request, flow: Flow, now: float) -> None:
        """An ACK for a 2xx."""
        call = self._dialogs.get((request.call_id, request.to.tag or ""))
        if call is not None:
            call.on_ack(request)

    def on_cancel(self, tx: ServerTransaction, invite: ServerTransaction | None, now: float) -> None:
        """A CANCEL. A call that was met with silence stays silent."""
        if invite is None:
            self._respond(tx, 481)
            return
        call = invite.user
        if isinstance(call, OpenAiCall):
            self._respond(tx, 200, to_tag=call.tag)
            call.on_cancel()

    def on_stray_response(self, response: Response, flow: Flow, now: float) -> None:
        """A response to nothing; dropped."""

    def on_server_failure(self, tx: ServerTransaction, now: float) -> None:
        """A response that could not be sent, or the ACK of a refusal that never came. The record shows the refusal."""

    # What calls need.

    def announce(self, call: OpenAiCall) -> None:
        """Send the webhook, if there is anyone to send it to."""
        if self._client is not None:
            task = asyncio.ensure_future(self._post(self._client, call))
            self._webhooks.add(task)
            task.add_done_callback(self._webhooks.discard)

    def forget(self, call: OpenAiCall) -> None:
        """A call is over."""
        self._calls.pop(call.record.rtc_id, None)
        self._dialogs.pop((call.request.call_id, call.tag), None)

    def new_hex(self, digits: int) -> str:
        """A fresh identifier."""
        return f"{self._random.getrandbits(4 * digits):0{digits}x}"

    def new_origin(self) -> Origin:
        """A fresh session: o= line, media port and SDES key."""
        number = self._random.randrange(1 << 30, 1 << 31)
        port = 10_000 + 2 * self._random.randrange(25_000)
        return Origin(number, number + 2, self.config.media_address, port, sdes_key(self._random))

    def _on_invite(self, tx: ServerTransaction, now: float) -> None:
        request = tx.request
        flow = tx.flow
        rtc_id = f"rtc_{self.new_hex(32)}"
        source = f"{flow.remote[0]}:{flow.remote[1]}"
        record = self._records.add(request, rtc_id, flow.transport, source, self.endpoint.data, now)
        try:
            offer = Session.parse(request.body) if request.body else None
        except SdpError:
            record.fault = "unreadable-sdp"
            record.status, record.reason = 400, "Invalid SDP offer"
            record.ended_at = now
            self._respond(tx, 400, record.reason)
            return
        decision = self._plan.decide(request, offer, record.key, record.attempt)
        record.fault = decision.fault
        if decision.fault in ("reset", "silent"):
            record.ended_at = now
            if decision.fault == "reset":
                self.endpoint.close_flow(flow, reset=True)
            return
        call = OpenAiCall(self, tx, record, decision, offer)
        tx.user = call
        self._calls[rtc_id] = call
        self._dialogs[(request.call_id, call.tag)] = call
        if decision.status:
            call.refuse_by_decision()
        elif decision.fault == "trying-only":
            call.stall()
        else:
            call.begin()

    def _respond(self, tx: ServerTransaction, status: int, reason: str | None = None, to_tag: str = "") -> None:
        tag = to_tag or self.new_hex(8)
        response = make_response(tx.request, status, reason, remote=tx.flow.remote, to_tag=tag)
        self.endpoint.respond(tx, response)

    def _certificate(self) -> tuple[Path, Path]:
        if self.config.certificate is not None and self.config.key is not None:
            return self.config.certificate, self.config.key
        directory = self.config.certificate_dir
        if directory is None:
            self._made_dir = tempfile.TemporaryDirectory(prefix="trunkline-sim-")
            directory = Path(self._made_dir.name)
        made = make_certificate(directory, self.config.certificate_names)
        self.ca_file = made.ca_file
        return made.certificate, made.key

    async def _post(self, client: aiohttp.ClientSession, call: OpenAiCall) -> None:
        config = self.config
        now = int(time.time())
        event_id = f"evt_{self.new_hex(32)}"
        body = event_body(call.request, config.webhook_type, event_id, call.record.rtc_id, now, call.srtp)
        headers = {"Content-Type": "application/json", "User-Agent": USER_AGENT}
        if config.webhook_secret is not None:
            headers |= signature_headers(config.webhook_secret, f"wh_{self.new_hex(32)}", now, body)
        try:
            async with client.post(config.webhook_url or "", data=body, headers=headers) as response:
                call.record.webhook = response.status
        except (OSError, ValueError) as error:
            call.record.webhook = f"{type(error).__name__}: {error}"
        except Exception as error:
            # aiohttp's own errors; its module is not loaded unless there is a webhook.
            call.record.webhook = type(error).__name__
