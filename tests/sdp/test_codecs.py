"""Codecs: static payload types, matching, and companions."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sdp import Codec, is_private_address
from proxy.sdp.codecs import deny, keep, parse_rtpmap, renumber_fmtp, static_codec

PCMU = Codec("PCMU", 8000, 1, 0)
OPUS = Codec("opus", 48000, 2, 107, "useinbandfec=1")


@pytest.mark.parametrize(
    ("codec", "other", "expected"),
    [
        (PCMU, "PCMU", True),
        (PCMU, "pcmu", True),
        (PCMU, "PCMU/8000", True),
        (PCMU, "PCMU/8000/1", True),
        (PCMU, "PCMU/16000", False),
        (PCMU, "PCMU/8000/2", False),
        (PCMU, "PCMU/", False),
        (PCMU, "PCM", False),
        (PCMU, "", False),
        (OPUS, "OPUS/48000/2", True),
        (OPUS, "opus/48000", True),
        (OPUS, "opus/48000/1", False),
        (Codec("L16", 44100, 1, 11), "L16/44100/1", True),
        (Codec("L16", 44100, 2, 10), "L16/44100/1", False),
        (Codec("G722", 8000, 1, 9), "G722/16000", True),
        (Codec("G722", 16000, 1, 9), "G722/8000", True),
        (Codec("", 0, 1, 97), "", False),
        (PCMU, Codec("pcmu", 8000, 1, 96), True),
        (PCMU, Codec("PCMU", 16000, 1, 96), False),
        (OPUS, Codec("opus", 48000, 1, 107), False),
        (Codec("G722", 16000, 1, 9), Codec("G722", 8000, 1, 9), True),
        (Codec("", 0, 1, 97), Codec("", 0, 1, 97), False),
    ],
)
def test_matches(codec: Codec, other: str | Codec, expected: bool) -> None:
    assert codec.matches(other) is expected


def test_equality_is_of_every_field() -> None:
    assert Codec("opus", 48000, 2, 107, "useinbandfec=1") == OPUS
    assert hash(Codec("opus", 48000, 2, 107, "useinbandfec=1")) == hash(OPUS)
    assert Codec("opus", 48000, 2, 107) != OPUS
    assert Codec("opus", 48000, 2, 96, "useinbandfec=1") != OPUS
    assert OPUS != "opus/48000/2"


# RFC 3551 tables 4 and 5, mono unless three parts are given.
RFC_3551 = """
0 PCMU/8000
3 GSM/8000
4 G723/8000
5 DVI4/8000
6 DVI4/16000
7 LPC/8000
8 PCMA/8000
9 G722/8000
10 L16/44100/2
11 L16/44100
12 QCELP/8000
13 CN/8000
14 MPA/90000
15 G728/8000
16 DVI4/11025
17 DVI4/22050
18 G729/8000
25 CelB/90000
26 JPEG/90000
28 nv/90000
31 H261/90000
32 MPV/90000
33 MP2T/90000
34 H263/90000
"""


def test_static_payload_types() -> None:
    table = dict(line.split(" ") for line in RFC_3551.strip().split("\n"))
    assert {str(i): Codec(*found, payload=i).rtpmap for i in range(-1, 129) if (found := static_codec(i))} == table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PCMU/8000", ("PCMU", 8000, 1)),
        (" opus/48000/2 ", ("opus", 48000, 2)),
        ("PCMU/8000/", ("PCMU", 8000, 1)),
        ("PCMU", None),
        ("PCMU/0", None),
        ("PCMU/8000/0", None),
        ("PCMU/8k", None),
        ("/8000", None),
        ("a b/8000", None),
        ("PCMU/" + "9" * 5000, None),
    ],
)
def test_rtpmap(text: str, expected: tuple[str, int, int] | None) -> None:
    assert parse_rtpmap(text) == expected


EVENT_8 = Codec("telephone-event", 8000, 1, 101)
EVENT_48 = Codec("telephone-event", 48000, 1, 110)
CN_8 = Codec("CN", 8000, 1, 13)
CN_16 = Codec("CN", 16000, 1, 105)
RED = Codec("red", 48000, 2, 63, "107/107")


def payloads(codecs: list[Codec]) -> list[int]:
    return [codec.payload for codec in codecs]


@pytest.mark.parametrize(
    ("codecs", "names", "expected"),
    [
        ([OPUS, PCMU, EVENT_48, EVENT_8], ["PCMU", "telephone-event"], [0, 101]),
        ([OPUS, PCMU, EVENT_48, EVENT_8], ["opus", "telephone-event"], [107, 110]),
        ([OPUS, PCMU, EVENT_48, EVENT_8], ["PCMU", "opus", "telephone-event"], [0, 107, 110, 101]),
        ([OPUS, EVENT_8], ["opus", "telephone-event"], [107, 101]),
        ([OPUS, EVENT_48, EVENT_8], ["telephone-event"], [110]),
        ([OPUS, PCMU, CN_8, CN_16], ["PCMU", "CN"], [0, 13]),
        ([OPUS, CN_8], ["opus", "CN"], [107]),
        ([OPUS, RED, PCMU], ["PCMU", "red"], [0]),
        ([OPUS, RED, PCMU], ["red", "opus"], [63, 107]),
        ([PCMU], ["PCMA"], []),
        ([PCMU], ["PCMU", "pcmu/8000"], [0]),
    ],
)
def test_keep(codecs: list[Codec], names: list[str], expected: list[int]) -> None:
    assert payloads(keep(codecs, names)) == expected


def test_deny_takes_companions_along() -> None:
    assert payloads(deny([OPUS, RED, PCMU, EVENT_48, EVENT_8], ["opus"])) == [0, 101]
    assert payloads(deny([OPUS, CN_8, EVENT_8], ["PCMA"])) == [107, 13, 101]


def test_a_companion_of_a_companion_goes_too() -> None:
    rtx = Codec("rtx", 48000, 1, 64, "apt=63")
    assert payloads(deny([OPUS, RED, rtx, PCMU], ["opus"])) == [0]
    assert payloads(deny([OPUS, RED, rtx, PCMU], ["PCMU"])) == [107, 63, 64]


def test_renumbering_of_parameters() -> None:
    assert renumber_fmtp(RED, "107/107", {"107": "111"}) == "111/111"
    assert renumber_fmtp(Codec("rtx", 90000, 1, 97), "apt=96;rtx-time=3000", {"96": "98"}) == "apt=98;rtx-time=3000"
    assert renumber_fmtp(Codec("rtx", 90000, 1, 97), "apt=96; rtx-time=3", {"95": "98"}) == "apt=96; rtx-time=3"
    assert renumber_fmtp(EVENT_8, "0-16", {"0": "8"}) == "0-16"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1", True),
        ("172.16.0.0", True),
        ("172.31.255.255", True),
        ("172.15.0.1", False),
        ("172.32.0.1", False),
        ("192.168.1.1", True),
        ("192.169.1.1", False),
        ("127.0.0.1", True),
        ("169.254.9.9", True),
        ("169.253.9.9", False),
        ("100.64.0.1", True),
        ("100.127.255.255", True),
        ("100.63.0.1", False),
        ("100.128.0.1", False),
        ("0.0.0.0", True),
        ("203.0.113.121", False),
        ("8.8.8.8", False),
        ("::", True),
        ("::1", True),
        ("0:0:0:0:0:0:0:1", True),
        ("::2", False),
        ("[::1]", True),
        ("fc00::1", True),
        ("fdff::1", True),
        ("fe80::1%eth0", True),
        ("fec0::1", True),
        ("febf::1", True),
        ("fe00::1", False),
        ("ff02::1", False),
        ("2001:db8::17", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:8.8.8.8", False),
        ("localhost", False),
        ("gw.example.com", False),
        ("10.0.0", False),
        ("10.0.0.256", False),
        ("10.0.0.x", False),
        ("10.0.0.٣", False),
        ("10.0.0.", False),
        ("fe80::zz", False),
        ("", False),
    ],
)
def test_private_address(address: str, expected: bool) -> None:
    assert is_private_address(address) is expected


PRIVATE = [
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 "
        "::/127 fc00::/7 fe80::/10 fec0::/10"
    ).split()
]


@given(
    st.one_of(
        st.ip_addresses(),
        st.sampled_from(PRIVATE).flatmap(
            lambda network: st.integers(-2, 2).map(
                lambda step: network.network_address + step if int(network.network_address) + step >= 0 else network[0]
            )
        ),
    )
)
def test_private_address_agrees_with_the_networks(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    real = mapped or address
    expected = any(real in network for network in PRIVATE if network.version == real.version)
    assert is_private_address(str(address)) is expected
