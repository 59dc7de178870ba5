"""Digest: the examples of the RFCs, the choice among challenges, and what is made of broken ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sip.auth import (
    Challenge,
    Credentials,
    best_challenge,
    challenge_values,
    ha1,
    parse_credentials,
    response_digest,
)
from proxy.sip.errors import SipError
from proxy.sip.message import Request, Response, header, read_header

NONCE_2617 = "dcd98b7102dd2f0e8b11d0f600bfb0c093"
NONCE_7616 = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
CNONCE_7616 = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
REALM_7616 = "http-auth@example.org"


def test_example_of_rfc_2617_section_3_5() -> None:
    secret = ha1("MD5", "Mufasa", "testrealm@host.com", "Circle Of Life")
    assert secret == "939e7578ed9e3c518a452acee763bce9"
    digest = response_digest("MD5", secret, NONCE_2617, "GET", "/dir/index.html", "00000001", "0a4f113b", "auth")
    assert digest == "6629fae49393a05397450978507c4ef1"


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_example_of_rfc_7616_section_3_9_1(algorithm: str, digest: str) -> None:
    secret = ha1(algorithm, "Mufasa", REALM_7616, "Circle of Life")
    args = (secret, NONCE_7616, "GET", "/dir/index.html", "00000001", CNONCE_7616, "auth")
    assert response_digest(algorithm, *args) == digest


def test_without_qop_the_form_of_rfc_2069() -> None:
    secret = ha1("MD5", "Mufasa", "testrealm@host.com", "Circle Of Life")
    digest = response_digest("MD5", secret, NONCE_2617, "GET", "/dir/index.html")
    assert digest == "670fd8c2df070c60b045671b8b24ff02"


def challenged(*lines: str) -> Response:
    return Response(401, "Unauthorized", [read_header(line) for line in lines])


def test_the_whole_header_of_rfc_7616() -> None:
    challenge = best_challenge(
        challenged(
            f'WWW-Authenticate: Digest realm="{REALM_7616}", qop="auth, auth-int", algorithm=SHA-256, '
            f'nonce="{NONCE_7616}", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"',
            f'WWW-Authenticate: Digest realm="{REALM_7616}", qop="auth, auth-int", algorithm=MD5, '
            f'nonce="{NONCE_7616}", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"',
        )
    )
    assert challenge is not None
    line = challenge.answer("Mufasa", "Circle of Life", "GET", "/dir/index.html", CNONCE_7616, 1)
    assert line.name == "Authorization"
    request = Request("GET", "/dir/index.html", [line])
    credentials = parse_credentials(request, REALM_7616)
    assert credentials is not None
    assert credentials.response == "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
    assert (credentials.username, credentials.uri, credentials.nc, credentials.qop) == (
        "Mufasa",
        "/dir/index.html",
        "00000001",
        "auth",
    )
    assert "qop=auth, nc=00000001," in line.value
    assert "algorithm=SHA-256" in line.value
    assert 'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"' in line.value


MD5 = 'Digest realm="r", nonce="m", algorithm=MD5, qop="auth"'
SHA = 'Digest realm="r", nonce="s", algorithm=SHA-256, qop="auth"'


@pytest.mark.parametrize(
    ("lines", "nonce"),
    [
        ([f"WWW-Authenticate: {MD5}", f"WWW-Authenticate: {SHA}"], "s"),
        ([f"WWW-Authenticate: {SHA}", f"WWW-Authenticate: {MD5}"], "s"),
        (['WWW-Authenticate: Digest realm="r", nonce="x", algorithm=SHA-512-256', f"WWW-Authenticate: {MD5}"], "m"),
        (['WWW-Authenticate: Digest realm="r", nonce="x", algorithm=MD5-sess', f"WWW-Authenticate: {SHA}"], "s"),
        (['WWW-Authenticate: Digest realm="r", nonce="x", qop="auth-int"', f"WWW-Authenticate: {MD5}"], "m"),
        (['WWW-Authenticate: Basic realm="r"', f"WWW-Authenticate: {MD5}"], "m"),
        (['WWW-Authenticate: Digest realm="unterminated', f"WWW-Authenticate: {MD5}"], "m"),
        (['WWW-Authenticate: Digest realm="r"', f"WWW-Authenticate: {MD5}"], "m"),
        (['WWW-Authenticate: Digest nonce=n,realm=r,algorithm="md5"'], "n"),
    ],
)
def test_the_strongest_challenge_that_can_be_answered_is(lines: list[str], nonce: str) -> None:
    challenge = best_challenge(challenged(*lines))
    assert challenge is not None
    assert challenge.nonce == nonce


@pytest.mark.parametrize(
    "line",
    ["X: y", "WWW-Authenticate: Negotiate", 'WWW-Authenticate: Digest realm="r", nonce="x", qop="auth-int"'],
)
def test_challenge_that_can_not_be_answered_gives_none(line: str) -> None:
    assert best_challenge(challenged(line)) is None


def test_proxy_challenge_is_answered_in_its_own_header() -> None:
    challenge = best_challenge(challenged('Proxy-Authenticate: Digest realm="r", nonce="n"'))
    assert challenge is not None
    assert (challenge.proxy, challenge.qop, challenge.stale) == (True, "", False)
    line = challenge.answer("u", "p", "INVITE", "sip:x@y", "c", 3)
    assert line.name == "Proxy-Authorization"
    assert "qop" not in line.value
    assert "nc=" not in line.value
    assert "cnonce" not in line.value


@pytest.mark.parametrize(("text", "stale"), [("stale=TRUE", True), ('stale="true"', True), ("stale=false", False)])
def test_stale_is_read_in_any_case(text: str, stale: bool) -> None:
    challenge = best_challenge(challenged(f'WWW-Authenticate: Digest realm="r", nonce="n", {text}'))
    assert challenge is not None
    assert challenge.stale is stale


def test_our_challenges_offer_sha_256_first() -> None:
    values = [value for _, value in challenge_values("here", "n", stale=True)]
    assert ["SHA-256" in values[0], "MD5" in values[1]] == [True, True]
    challenge = best_challenge(challenged(*[f"WWW-Authenticate: {value}" for value in values]))
    assert challenge is not None
    assert (challenge.realm, challenge.nonce, challenge.algorithm, challenge.qop) == ("here", "n", "SHA-256", "auth")
    assert challenge.stale


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00", exclude_categories=["Cs"]), min_size=1)


@given(user=TEXT, realm=TEXT, nonce=TEXT, password=TEXT, algorithm=st.sampled_from(["MD5", "SHA-256"]))
def test_credentials_of_ours_prove_the_password_and_no_other(
    user: str, realm: str, nonce: str, password: str, algorithm: str
) -> None:
    challenge = Challenge(False, realm, nonce, algorithm, "auth", None, False)
    line = challenge.answer(user, password, "INVITE", "sip:x@y", "c1", 1)
    request = Request("INVITE", "sip:x@y", [read_header(line.line)])
    credentials = parse_credentials(request, realm)
    assert credentials is not None
    assert credentials.username == user
    assert credentials.nonce == nonce
    assert credentials.count == 1
    assert credentials.proves(password, "INVITE")
    assert not credentials.proves(password + "x", "INVITE")
    assert not credentials.proves(password, "BYE")


@pytest.mark.parametrize(
    "change",
    [{"qop": ""}, {"qop": "auth-int"}, {"cnonce": ""}, {"algorithm": "MD5-sess"}, {"response": ""}, {"nc": "00000002"}],
)
def test_credentials_that_are_not_whole_prove_nothing(change: dict[str, str]) -> None:
    fields = {
        "username": "u",
        "realm": "r",
        "nonce": "n",
        "uri": "sip:x@y",
        "algorithm": "MD5",
        "qop": "auth",
        "nc": "00000001",
        "cnonce": "c",
    }
    secret = ha1("MD5", "u", "r", "p")
    fields["response"] = response_digest("MD5", secret, "n", "INVITE", "sip:x@y", "00000001", "c", "auth")
    assert Credentials(fields).proves("p", "INVITE")
    assert not Credentials({**fields, **change}).proves("p", "INVITE")


@pytest.mark.parametrize(("text", "count"), [("0000000a", 10), ("zz", 0), ("", 0), ("-1", 0), ("1_0", 0), ("+1", 0)])
def test_nonce_count_is_hexadecimal_or_nothing(text: str, count: int) -> None:
    assert Credentials({"nc": text}).count == count


def test_credentials_for_another_realm_or_scheme_are_none() -> None:
    lines = [header("Authorization", "Basic dTpw"), header("Authorization", 'Digest realm="other", nonce="n"')]
    assert parse_credentials(Request("INVITE", "sip:x@y", lines), "here") is None


def test_broken_credentials_raise_400() -> None:
    request = Request("INVITE", "sip:x@y", [header("Authorization", 'Digest realm="here')])
    with pytest.raises(SipError) as caught:
        parse_credentials(request, "here")
    assert caught.value.status == 400
