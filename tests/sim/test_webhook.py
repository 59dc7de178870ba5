"""The webhook's signature and body."""

import json

import pytest

from proxy.sim.webhook import event_body, signature_headers
from proxy.sip.message import Request, header


def test_signature_is_that_of_the_reference_vector() -> None:
    """The vector of the Standard Webhooks reference implementations."""
    headers = signature_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("secret", ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_not base64"])
def test_bad_secret_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        signature_headers(secret, "msg_1", 1, b"{}")


def invite() -> Request:
    lines = [
        header("From", '"caf\udcc3\udca9 \udcff" <sip:+15550100002@a.example>;tag=1'),
        header("X-Tenant", "one"),
        header("X-Tenant", "two"),
        header("Authorization", 'Digest response="secret"'),
    ]
    return Request("INVITE", "sip:x@y", lines)


def test_body_has_the_headers_in_order_and_no_credentials() -> None:
    event = json.loads(event_body(invite(), "realtime.call.incoming", "evt_1", "rtc_1", 1750287018, srtp=True))
    assert event == {
        "object": "event",
        "id": "evt_1",
        "type": "realtime.call.incoming",
        "created_at": 1750287018,
        "data": {
            "call_id": "rtc_1",
            "sip_headers": [
                {"name": "From", "value": '"café �" <sip:+15550100002@a.example>;tag=1'},
                {"name": "X-Tenant", "value": "one"},
                {"name": "X-Tenant", "value": "two"},
            ],
            "sip_media_security": "srtp",
        },
    }


def test_live_event_has_a_session_id() -> None:
    data = json.loads(event_body(invite(), "live.transport.incoming", "evt_1", "live_1", 1, srtp=False))["data"]
    assert (data["type"], data["session_id"], data["sip_media_security"]) == ("sip", "live_1", "rtp")
    assert "call_id" not in data
