"""The stream framer: messages and keep-alives out of bytes as they come, and streams that can't be trusted."""

import pytest

from proxy.sip.errors import SipError
from proxy.sip.parser import MAX_HEAD_BYTES, MAX_MESSAGE_BYTES, MalformedMessage, StreamFramer, content_length
from tests.sip.samples import OPENAI_200, TWILIO_BYE, TWILIO_INVITE, wire

PING, PONG = StreamFramer.PING, StreamFramer.PONG


def feed_all(framer: StreamFramer, chunks: list[bytes]) -> list[bytes]:
    """What comes out until the end or a fault, which `framer.error` then tells."""
    out: list[bytes] = []
    for chunk in chunks:
        try:
            out.extend(framer.feed(chunk))
        except MalformedMessage as error:
            assert framer.error is error  # noqa: PT017
            break
    return out


def test_messages_one_by_one_and_together() -> None:
    framer = StreamFramer()
    assert framer.feed(TWILIO_INVITE) == [TWILIO_INVITE]
    assert framer.feed(TWILIO_BYE + OPENAI_200 + TWILIO_INVITE[:100]) == [TWILIO_BYE, OPENAI_200]
    assert framer.pending_bytes == 100
    assert framer.feed(TWILIO_INVITE[100:]) == [TWILIO_INVITE]
    assert (framer.pending_bytes, framer.error) == (0, None)
    assert framer.feed(b"") == []


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1000])
def test_chunks_of_any_size(size: int) -> None:
    stream = TWILIO_INVITE + PING + TWILIO_BYE + PONG + OPENAI_200
    framer = StreamFramer()
    out = feed_all(framer, [stream[at : at + size] for at in range(0, len(stream), size)])
    assert [message for message in out if message not in (PING, PONG)] == [TWILIO_INVITE, TWILIO_BYE, OPENAI_200]
    assert out.count(PING) == 1
    assert out[-2] == PONG


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"\r\n\r\n"], [PING]),
        ([b"\r\n"], [PONG]),
        ([b"\r\n\r\n\r\n"], [PING, PONG]),
        ([b"\r\n\r\n\r\n\r\n"], [PING, PING]),
        ([b"\r", b"\n"], [PONG]),
        ([b"\r\n", b"\r\n"], [PONG, PING]),
        ([b"\r\n\r", b"\n"], [PONG, PING]),
        ([b"\r\n", b"\r\n\r\n"], [PONG, PING, PONG]),
        ([b"\r"], []),
        ([b"\r\n", TWILIO_BYE, b"\r\n"], [PONG, TWILIO_BYE, PONG]),
        ([b"\r\n" + TWILIO_BYE + b"\r\n"], [PONG, TWILIO_BYE, PONG]),
        ([b"\r\n", TWILIO_BYE[:9], TWILIO_BYE[9:], PING], [PONG, TWILIO_BYE, PING]),
    ],
)
def test_keep_alives(chunks: list[bytes], expected: list[bytes]) -> None:
    assert feed_all(StreamFramer(), chunks) == expected


@pytest.mark.parametrize("data", [b"\n", b"\n\r\n", b"\rINVITE", b"\r\r\n", b"\r\n\n", b"\r\n\r\n\rX"])
def test_stray_bytes(data: bytes) -> None:
    whole, single = StreamFramer(), StreamFramer()
    for framer, chunks in ((whole, [data]), (single, [bytes((byte,)) for byte in data])):
        feed_all(framer, chunks)
        assert framer.error is not None
        assert (framer.error.reason, framer.error.partial) == ("Stray bytes between messages", None)


def test_messages_before_a_fault_are_not_lost() -> None:
    framer = StreamFramer()
    assert framer.feed(TWILIO_BYE + b"\n") == [TWILIO_BYE]
    assert framer.error is not None
    assert framer.pending_bytes == 1
    for _ in range(2):
        with pytest.raises(MalformedMessage) as caught:
            framer.feed(TWILIO_BYE)
        assert caught.value is framer.error


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        ("", 0),
        ("Content-Length: 5", 5),
        ("content-LENGTH\t :  5 ", 5),
        ("l:5", 5),
        ("L :\n\t5", 5),
        ("Content-Length: 5\nl: 05", 5),
        ("Content-Length:\n \n 5", 5),
        ("X: y\n Content-Length: 9\n l: 9\nl: 5", 5),
        ("X-Content-Length: 9\nl: 5", 5),
        ("Content-Length-X: 9\nContent-Lengt: 9", 0),
        ("lo: 9\nll: 9", 0),
        ("l\n : 9", 0),
        ("Content-Length 9", 0),
        ("Content-Length\x0b: 9", 0),
    ],
)
def test_length_of_the_body(lines: str, length: int) -> None:
    head = wire(f"INFO sip:h SIP/2.0\n{lines}\nVia: SIP/2.0/TCP h" if lines else "INFO sip:h SIP/2.0\nVia: x")
    assert content_length(head) == length
    body = b"l: 7\r"
    framer = StreamFramer()
    assert framer.feed(head + body[:length]) == [head + body[:length]]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("Content-Length: x", "Malformed"),
        ("Content-Length:", "Malformed"),
        ("Content-Length: -5", "Malformed"),
        ("Content-Length: +5", "Malformed"),
        ("Content-Length: 5 5", "Malformed"),
        ("Content-Length: 5\n 5", "Malformed"),
        ("Content-Length: 0000000005", "Malformed"),
        ("Content-Length: 18446744073709551621", "Malformed"),
        ("Content-Length: \x1c5", "Malformed"),
        ("Content-Length: 5\nl: 6", "Conflicting"),
        ("Content-Length: 0\nl:\n 6", "Conflicting"),
    ],
)
def test_length_that_can_not_be_trusted(lines: str, reason: str) -> None:
    head = wire(f"INFO sip:h SIP/2.0\nVia: SIP/2.0/TCP h\n{lines}")
    with pytest.raises(SipError, match=reason):
        content_length(head)
    with pytest.raises(MalformedMessage, match=f"400 {reason}") as caught:
        StreamFramer().feed(head)
    assert caught.value.partial is not None
    assert caught.value.partial.method == "INFO"


def test_message_too_large() -> None:
    with pytest.raises(MalformedMessage, match="513 Message Too Large") as caught:
        StreamFramer().feed(wire("INFO sip:h SIP/2.0\nVia: SIP/2.0/TCP h\nl: 65535") + b"x")
    assert caught.value.partial is not None
    fits = wire("INFO sip:h SIP/2.0\nl: {length}", b"x" * (MAX_MESSAGE_BYTES - 32))
    assert len(fits) == MAX_MESSAGE_BYTES
    assert StreamFramer().feed(fits) == [fits]
    with pytest.raises(MalformedMessage, match="513"):
        StreamFramer(len(TWILIO_BYE) - 1).feed(TWILIO_BYE)
    assert StreamFramer(len(TWILIO_BYE)).feed(TWILIO_BYE) == [TWILIO_BYE]


@pytest.mark.parametrize("size", [1 << 20, 977])
def test_head_too_large(size: int) -> None:
    line = b"OPTIONS sip:h SIP/2.0\r\nX: "
    fits = line + b"y" * (MAX_HEAD_BYTES - len(line)) + b"\r\n\r\n"
    for data, good in ((fits, True), (fits.replace(b"y", b"yy", 1), False), (b"x" * (MAX_HEAD_BYTES + 4), False)):
        framer = StreamFramer()
        out = feed_all(framer, [data[at : at + size] for at in range(0, len(data), size)])
        assert (out == [data]) == good
        if good:
            assert framer.error is None
        else:
            assert framer.error is not None
            assert (framer.error.status, framer.error.partial) == (513, None)


def test_response_that_can_not_be_framed_has_no_partial() -> None:
    with pytest.raises(MalformedMessage) as caught:
        StreamFramer().feed(OPENAI_200.replace(b"Content-Length: ", b"Content-Length: -"))
    assert caught.value.partial is None
