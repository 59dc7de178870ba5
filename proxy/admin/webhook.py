"""The webhook tap: verifies OpenAI's webhook, puts it on record, and passes it to the application untouched.

The signature is that of Standard Webhooks (github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md);
the body is as OpenAI documents `realtime.call.incoming` (developers.openai.com/api/docs/guides/realtime-sip).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import aiohttp
import orjson
from fastapi import FastAPI, Request, Response
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

__all__ = ["TapSettings", "Tell", "Webhook", "create_tap"]

Tell = Callable[[str, str, int, dict[str, object]], None]
"""Called from the web thread with `arrived`, `answered` or `refused`, our call id, the attempt, and fields."""

_MAX_BODY: Final = 1024 * 1024
_MAX_SEEN: Final = 10_000
_CALL_ID: Final = "x-trunkline-call-id"
_ATTEMPT: Final = "x-trunkline-attempt"
_HOP_BY_HOP: Final = frozenset(
    "connection content-length host keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding "
    "upgrade".split()
)
_WITHOUT_BODY: Final = frozenset((204, 304))
_PASSING: Final = frozenset((502, 503, 504))
_FIRST_WAIT_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class TapSettings:
    """How the tap works.

    Attributes:
        path: what webhooks are posted to. secret: their signing secret (`whsec_…`).
        forward_url: the application; None answers 200 here.
        deadline_s: how long the application may take in all. attempts: how often a forward that fails is tried.
    """

    path: str
    secret: str
    forward_url: str | None
    deadline_s: float = 10.0
    attempts: int = 5


class _Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    tries: int
    why: str = ""


class Webhook:
    """Takes one webhook after the other.

    Args:
        settings: how.
        tell: is told of each; it must not wait.
    """

    def __init__(self, settings: TapSettings, tell: Tell) -> None:
        self.settings = settings
        self._tell = tell
        self._verifier = Verifier(settings.secret)
        self._seen: dict[str, None] = {}
        self._client: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make ready to forward."""
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # a webhook waits for no other one
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )

    async def close(self) -> None:
        """Close the connections to the application."""
        if self._client is not None:
            await self._client.close()

    async def take(self, body: bytes, headers: list[tuple[str, str]], peer: str) -> Response:
        """Verify, record, forward; the answer is that of the application."""
        try:
            event = self._verifier.verify(body, {name.lower(): value for name, value in headers})
        except (WebhookVerificationError, ValueError) as error:
            return self.refuse(401, "the signature is not good", peer, str(error) or "not signed as it should be")
        call_id, attempt, fields = _read(event, headers)
        if self._is_known(str(fields["webhook_id"])):
            fields["again"] = True
        self._tell("arrived", call_id, attempt, fields)
        if self.settings.forward_url is None:
            return Response(status_code=200)
        started = time.monotonic()
        answer = await self._forward(self.settings.forward_url, body, headers, started)
        outcome: dict[str, object] = {"tries": answer.tries, "duration_s": round(time.monotonic() - started, 6)}
        outcome.update({"why": answer.why} if answer.why else {"status": answer.status})
        self._tell("answered", call_id, attempt, {**fields, **outcome})
        if answer.why:
            return _refusal(answer.status, "the application could not be reached")
        response = Response(answer.body, answer.status)
        response.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("utf-8", "surrogateescape")) for name, value in answer.headers
        ]
        if answer.status not in _WITHOUT_BODY:
            response.raw_headers.append((b"content-length", str(len(answer.body)).encode()))
        return response

    def refuse(self, status: int, text: str, peer: str, why: str) -> Response:
        """Turn something away that is no webhook, and put that on record."""
        self._tell("refused", "", 0, {"why": why, "peer": peer})
        return _refusal(status, text)

    def _is_known(self, webhook_id: str) -> bool:
        """Whether a webhook came before: sent again by OpenAI, or by somebody who has seen it."""
        if webhook_id in self._seen:
            return True
        if len(self._seen) >= _MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[webhook_id] = None
        return False

    async def _forward(self, url: str, body: bytes, headers: list[tuple[str, str]], started: float) -> _Answer:
        """Post it until the application answers. No connection, 502, 503 and 504 are tried again."""
        settings, client = self.settings, self._client
        assert client is not None
        passed_on = [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]
        wait_s, tries, answer = _FIRST_WAIT_S, 0, _Answer(502, [], b"", 0, "not tried")
        while True:
            tries += 1
            left_s = settings.deadline_s - (time.monotonic() - started)
            try:
                timeout = aiohttp.ClientTimeout(total=max(left_s, 0.001))
                async with client.post(
                    url, data=body, headers=passed_on, timeout=timeout, allow_redirects=False
                ) as reply:
                    kept = [(k, v) for k, v in reply.headers.items() if k.lower() not in _HOP_BY_HOP]
                    answer = _Answer(reply.status, kept, await reply.read(), tries)
            except TimeoutError:
                return _Answer(504, [], b"", tries, f"no answer in {settings.deadline_s:g} s")
            except (aiohttp.ClientError, OSError, ValueError) as error:
                answer = _Answer(502, [], b"", tries, str(error) or type(error).__name__)
            done = not answer.why and answer.status not in _PASSING
            left_s = settings.deadline_s - (time.monotonic() - started)
            if done or tries >= settings.attempts or left_s <= wait_s:
                return answer
            await asyncio.sleep(wait_s)
            wait_s *= 3


def _header_text(value: bytes) -> str:
    """A header's value as text that the client writes as the same bytes: it writes UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _read(event: Any, headers: list[tuple[str, str]]) -> tuple[str, int, dict[str, object]]:
    """Our call id and attempt, as the INVITE carried them, and what is worth recording."""
    ids = {name.lower(): value for name, value in headers}
    fields: dict[str, object] = {"webhook_id": ids.get("webhook-id", "")}
    call_id, attempt = "", 0
    if isinstance(event, Mapping):
        fields["type"] = str(event.get("type", ""))[:80]
        data = event.get("data")
        if isinstance(data, Mapping):
            fields["openai_call_id"] = str(data.get("call_id") or data.get("session_id") or "")[:120]
            found = _sip_headers(data.get("sip_headers"))
            call_id = found.get(_CALL_ID, "")
            number = found.get(_ATTEMPT, "")
            attempt = int(number) if number.isascii() and number.isdigit() and len(number) < 4 else 0
    return call_id, attempt, fields


def _sip_headers(value: Any) -> dict[str, str]:
    """The headers of the INVITE that say which call it is."""
    found: dict[str, str] = {}
    for item in value if isinstance(value, list) else ():
        if isinstance(item, Mapping):
            name = str(item.get("name", "")).lower()
            if name in (_CALL_ID, _ATTEMPT):
                found[name] = str(item.get("value", "")).strip()
    return found


def _refusal(status: int, text: str) -> Response:
    return Response(orjson.dumps({"error": text}), status, media_type="application/json")


def create_tap(webhook: Webhook) -> FastAPI:
    """The application that serves the tap."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        await webhook.open()
        yield
        await webhook.close()

    app = FastAPI(title="Trunkline", docs_url=None, redoc_url=None, openapi_url=None, lifespan=life)

    @app.post(webhook.settings.path)
    async def take(request: Request) -> Response:
        peer = "" if request.client is None else request.client.host
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY:
                return webhook.refuse(413, "too large", peer, f"more than {_MAX_BODY} bytes")
        headers = [(name.decode("latin-1"), _header_text(value)) for name, value in request.headers.raw]
        return await webhook.take(bytes(body), headers, peer)

    return app
