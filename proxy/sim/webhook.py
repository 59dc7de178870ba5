"""The `realtime.call.incoming` webhook: its body and its signature.

The body is as OpenAI documents it (developers.openai.com/api/docs/guides/realtime-sip), the signature is that of
Standard Webhooks (github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

from proxy.sip.message import Request

__all__ = ["USER_AGENT", "check_secret", "event_body", "signature_headers"]

USER_AGENT: Final = "OpenAI/1.0 (+https://platform.openai.com/docs/webhooks)"
_WITHHELD: Final = frozenset(("authorization", "proxy-authorization"))


def check_secret(secret: str) -> bytes:
    """The key in a `whsec_…` secret. Raises ValueError when it is none."""
    text = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if text == secret or not key:
        raise ValueError("a webhook secret is whsec_ and a key in base64")
    return key


def signature_headers(secret: str, webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks. `timestamp` is in Unix seconds. Raises ValueError for a bad secret."""
    signed = b"%s.%d.%s" % (webhook_id.encode(), timestamp, body)
    digest = hmac.new(check_secret(secret), signed, hashlib.sha256).digest()
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def event_body(request: Request, event_type: str, event_id: str, call_id: str, created_at: int, srtp: bool) -> bytes:
    """The event as JSON. `sip_headers` holds the INVITE's header fields in their order, without authorization.

    `created_at` is in Unix seconds. For `live.transport.incoming` (GPT-Live) the call's id is a `session_id`.
    """
    import orjson

    headers = [
        {"name": _readable(item.name.strip()), "value": _readable(item.value)}
        for item in request.headers
        if item.key and item.key not in _WITHHELD
    ]
    security = "srtp" if srtp else "rtp"
    data: dict[str, object]
    if event_type.startswith("live."):
        data = {"type": "sip", "session_id": call_id, "sip_media_security": security, "sip_headers": headers}
    else:
        data = {"call_id": call_id, "sip_headers": headers, "sip_media_security": security}
    return orjson.dumps({"object": "event", "id": event_id, "type": event_type, "created_at": created_at, "data": data})


def _readable(text: str) -> str:
    """Text without the marks of bytes that are not UTF-8, which JSON can't hold."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
