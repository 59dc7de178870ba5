"""Digest authentication (RFC 3261 section 22): as UAC towards a target, as UAS for sources without an address of their
own in the allow-list."""

import pytest
from requests.auth import HTTPDigestAuth
from requests.utils import parse_dict_header

from proxy.b2bua.config import RetryPolicy, Target, Trunk
from proxy.b2bua.limits import Limits
from proxy.sip.auth import Challenge, Credentials, best_challenge, parse_credentials
from proxy.sip.message import Message
from proxy.sip.uri import parse_uri
from tests.b2bua.conftest import BenchMaker
from tests.support.bench import ANSWER, OFFER, Bench, message_text, network

USER, PASSWORD = "trunk-user", "s3cret"
ONCE = RetryPolicy(max_attempts=1)


def challenge(
    nonce: str = "n1", *, proxy: bool = False, realm: str = "carrier", algorithm: str = "MD5", more: str = ""
) -> str:
    name = "Proxy-Authenticate" if proxy else "WWW-Authenticate"
    return f'{name}: Digest realm="{realm}", nonce="{nonce}", algorithm={algorithm}, qop="auth"{more}'


def credentials(request: Message, realm: str = "carrier") -> Credentials:
    """The one Authorization of a request for a realm."""
    found = parse_credentials(request, realm)
    assert found is not None
    return found


@pytest.fixture
def bench(make_bench: BenchMaker) -> Bench:
    """One target that has credentials."""
    target = Target("main", parse_uri("sip:agent@203.0.113.5"), username=USER, password=PASSWORD)
    return make_bench(targets=[target], retry=ONCE)


# As UAC


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_challenged_invite_goes_out_again_with_credentials(bench: Bench, algorithm: str) -> None:
    bench.invite()
    bench.respond(401, extra=challenge(algorithm=algorithm))
    first, second = bench.invites
    assert bench.target_saw == ["INVITE", "ACK", "INVITE"]
    assert (second.call_id, second.from_.tag, second.cseq.number) == (first.call_id, first.from_.tag, 2)
    assert second.via.branch != first.via.branch
    assert second.to.tag is None
    assert second.body == first.body
    found = credentials(second)
    assert (found.username, found.uri, found.nc, found.algorithm) == (USER, second.uri, "00000001", algorithm)
    assert found.proves(PASSWORD, "INVITE")
    assert first.get("authorization") is None
    bench.respond(200, body=ANSWER)
    assert bench.last_response.status == 200
    assert bench.caller_saw == ["100 INVITE", "200 INVITE"]


def test_proxy_challenge_is_answered_in_proxy_authorization(bench: Bench) -> None:
    bench.invite()
    bench.respond(407, extra=challenge(proxy=True))
    assert bench.invites[-1].get("authorization") is None
    assert 'username="trunk-user"' in (bench.invites[-1].get("proxy-authorization") or "")


def test_sha_256_is_taken_before_md5(bench: Bench) -> None:
    bench.invite()
    bench.respond(401, extra=f"{challenge('m')}\n{challenge('s', algorithm='SHA-256')}")
    assert credentials(bench.invites[-1]).nonce == "s"


def test_a_proxy_and_the_target_behind_it_each_get_their_own(bench: Bench) -> None:
    bench.invite()
    bench.respond(407, extra=challenge("p", proxy=True, realm="proxy"))
    bench.respond(401, extra=challenge("t"))
    last = bench.invites[-1]
    assert last.cseq.number == 3
    assert 'nonce="p"' in (last.get("proxy-authorization") or "")
    assert "nc=00000002" in (last.get("proxy-authorization") or "")
    assert credentials(last).nonce == "t"
    bench.respond(200, body=ANSWER)
    assert bench.last_response.status == 200


def test_credentials_that_were_refused_are_not_offered_again(bench: Bench) -> None:
    bench.invite()
    bench.respond(401, extra=challenge("n1"))
    bench.respond(401, extra=challenge("n2"))
    assert len(bench.invites) == 2
    assert (bench.last_response.status, bench.last_response.reason) == (403, "Forbidden")
    assert bench.last_response.get("www-authenticate") is None
    assert (bench.last_response.get("reason") or "").startswith("SIP;cause=401")


def test_the_same_nonce_again_without_stale_is_no_new_challenge(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INFO", cseq=2)
    bench.respond(401, request=bench.requests("INFO")[-1], extra=challenge("n1"))
    bench.respond(200, request=bench.requests("INFO")[-1])
    bench.caller_request("INFO", cseq=3)
    bench.respond(401, request=bench.requests("INFO")[-1], extra=challenge("n1"))
    assert [credentials(info).nc for info in bench.requests("INFO")[1:]] == ["00000001", "00000002"]
    assert bench.last_response.status == 403


def test_stale_nonce_is_replaced(bench: Bench) -> None:
    bench.invite()
    bench.respond(401, extra=challenge("n1"))
    bench.respond(401, extra=challenge("n2", more=", stale=true"))
    last = credentials(bench.invites[-1])
    assert (last.nonce, last.nc) == ("n2", "00000001")


def test_a_target_that_finds_every_nonce_stale_is_given_up_after_three(bench: Bench) -> None:
    bench.invite()
    for number in range(6):
        if len(bench.invites) == number + 1:
            bench.respond(401, extra=challenge(f"n{number}", more=", stale=true"))
    assert len(bench.invites) == 4
    assert bench.last_response.status == 403


def test_challenge_without_credentials_in_the_settings_is_a_403_for_the_caller(make_bench: BenchMaker) -> None:
    bench = make_bench(retry=ONCE)
    bench.invite()
    bench.respond(407, extra=challenge(proxy=True))
    assert len(bench.invites) == 1
    assert bench.last_response.status == 403
    assert (bench.last_response.get("reason") or "").startswith("SIP;cause=407")
    assert bench.last_response.get("proxy-authenticate") is None


def test_challenge_that_we_do_not_understand_is_a_403_for_the_caller(bench: Bench) -> None:
    bench.invite()
    bench.respond(401, extra='WWW-Authenticate: Digest realm="r", nonce="n", algorithm=SHA-512-256, qop="auth"')
    assert bench.last_response.status == 403


def test_cancelled_call_is_not_tried_again_with_credentials(bench: Bench) -> None:
    branch = bench.invite()
    bench.respond(100)
    bench.caller_request("CANCEL", branch=branch)
    bench.respond(401, extra=challenge())
    assert len(bench.invites) == 1


def test_the_next_attempt_begins_without_the_credentials_of_the_last(make_bench: BenchMaker) -> None:
    target = Target("main", parse_uri("sip:agent@203.0.113.5"), username=USER, password=PASSWORD)
    bench = make_bench(targets=[target], transport="tcp", retry=RetryPolicy(max_attempts=2))
    bench.invite()
    bench.respond(401, extra=challenge())
    bench.respond(500)
    bench.advance(1)
    assert bench.invites[-1].cseq.number == 1
    assert bench.invites[-1].get("authorization") is None


def test_nonce_count_goes_up_through_the_call_and_the_ack_has_the_invites_credentials(bench: Bench) -> None:
    bench.invite()
    bench.respond(401, extra=challenge())
    bench.respond(200, body=ANSWER)
    bench.caller_request("ACK")
    ack = bench.requests("ACK")[-1]
    assert ack.get("authorization") == bench.invites[-1].get("authorization")
    bench.caller_request("INFO", cseq=2)
    bench.respond(200, request=bench.requests("INFO")[-1])
    bench.caller_request("BYE", cseq=3)
    info, bye = credentials(bench.requests("INFO")[-1]), credentials(bench.requests("BYE")[-1])
    assert [info.nc, bye.nc] == ["00000002", "00000003"]
    assert info.proves(PASSWORD, "INFO")
    assert bye.proves(PASSWORD, "BYE")
    assert bye.uri == bench.requests("BYE")[-1].uri


def test_ack_of_a_late_offer_has_the_invites_credentials(bench: Bench) -> None:
    bench.invite(body="")
    bench.respond(401, extra=challenge())
    bench.respond(200, body=OFFER)
    bench.caller_request("ACK", body=ANSWER)
    ack = bench.requests("ACK")[-1]
    assert ack.body == ANSWER.encode()
    assert ack.get("authorization") == bench.invites[-1].get("authorization")


def test_challenged_reinvite_is_sent_again_and_the_caller_hears_only_the_end(bench: Bench) -> None:
    bench.answered_call()
    bench.forget()
    bench.caller_request("INVITE", cseq=2, body=OFFER, extra="Contact: <sip:+15550100002@192.0.2.10:5060>")
    first = bench.invites[-1]
    bench.respond(401, extra=challenge())
    second = bench.invites[-1]
    assert second.cseq.number == first.cseq.number + 1
    assert credentials(second).proves(PASSWORD, "INVITE")
    assert second.body == first.body
    bench.respond(200, body=ANSWER)
    assert bench.caller_saw == ["100 INVITE", "200 INVITE"]
    bench.caller_request("ACK", cseq=2)


def test_challenged_bye_is_sent_again(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("BYE")
    bench.respond(407, request=bench.requests("BYE")[-1], extra=challenge(proxy=True))
    first, second = bench.requests("BYE")
    assert second.cseq.number == first.cseq.number + 1
    assert second.get("proxy-authorization") is not None
    bench.respond(407, request=second, extra=challenge("n2", proxy=True))
    assert len(bench.requests("BYE")) == 2


def test_challenged_bye_of_a_late_answer_is_sent_again(bench: Bench) -> None:
    branch = bench.invite()
    bench.respond(401, extra=challenge())
    bench.respond(180)
    bench.caller_request("CANCEL", branch=branch)
    bench.respond(200, body=ANSWER)
    assert bench.requests("ACK")[-1].get("authorization") == bench.invites[-1].get("authorization")
    bye = bench.requests("BYE")[-1]
    assert credentials(bye).nc == "00000002"
    bench.respond(401, request=bye, extra=challenge("n2"))
    again = bench.requests("BYE")[-1]
    assert (again.cseq.number, credentials(again).nonce) == (bye.cseq.number + 1, "n2")


def test_refused_credentials_in_the_dialog_are_a_403_for_the_caller(bench: Bench) -> None:
    bench.answered_call()
    bench.caller_request("INFO", cseq=2)
    bench.respond(401, request=bench.requests("INFO")[-1], extra=challenge("n1"))
    bench.respond(401, request=bench.requests("INFO")[-1], extra=challenge("n2"))
    assert bench.last_response.status == 403
    assert bench.last_response.get("www-authenticate") is None
    assert bench.stack.calls_in_progress == 1


def test_a_long_call_outlives_any_number_of_nonces(bench: Bench) -> None:
    bench.answered_call()
    for number in range(2, 12):
        bench.caller_request("INFO", cseq=number)
        bench.respond(401, request=bench.requests("INFO")[-1], extra=challenge(f"n{number}", more=", stale=true"))
        bench.respond(200, request=bench.requests("INFO")[-1])
        assert bench.last_response.status == 200


def test_the_password_is_in_no_event_and_no_message(bench: Bench) -> None:
    bench.invite()
    bench.respond(401, extra=challenge())
    bench.respond(200, body=ANSWER)
    for _, _, message in bench.wire:
        assert PASSWORD.encode() not in message.serialize()
    assert PASSWORD not in repr([event.fields for event in bench.events])


# As UAS


@pytest.fixture
def uas(make_bench: BenchMaker) -> Bench:
    """Nobody is in the allow-list; one user is known."""
    return make_bench(allow=(), users={USER: PASSWORD}, realm="trunkline", transport="tcp")


def nonce_of(bench: Bench) -> str:
    asked = best_challenge(bench.last_response)
    assert asked is not None
    return asked.nonce


def authorized(
    bench: Bench,
    *,
    username: str = USER,
    password: str = PASSWORD,
    uri: str = "sip:+15550100001@198.51.100.1",
    nonce: str = "",
    count: int = 1,
    algorithm: str = "SHA-256",
    cseq: int = 2,
    call_id: str = "call-1",
) -> None:
    """An INVITE with an answer to a challenge, by default to the last one."""
    asked = Challenge(False, "trunkline", nonce or nonce_of(bench), algorithm, "auth", None, False)
    line = asked.answer(username, password, "INVITE", uri, f"c{count}", count).line
    bench.invite(cseq=cseq, call_id=call_id, extra=line)


def acknowledged(bench: Bench, branch: str, cseq: int = 1) -> None:
    """The ACK for a refusal, in its INVITE's transaction."""
    bench.receive(
        message_text(
            "ACK sip:+15550100001@198.51.100.1 SIP/2.0",
            [
                f"Via: SIP/2.0/UDP 192.0.2.10:5060;branch={branch}",
                "Max-Forwards: 70",
                "From: <sip:+15550100002@192.0.2.10>;tag=caller",
                f"To: {bench.last_response.get('to')}",
                "Call-ID: call-1",
                f"CSeq: {cseq} ACK",
            ],
        ),
        bench.caller_flow,
    )


def test_unknown_source_is_asked_for_credentials_and_then_may_call(uas: Bench) -> None:
    branch = uas.invite()
    assert uas.caller_saw == ["401 INVITE"]
    values = uas.last_response.get_all("www-authenticate")
    assert ["algorithm=SHA-256" in values[0], "algorithm=MD5" in values[1], len(values)] == [True, True, 2]
    acknowledged(uas, branch)
    uas.advance(40)
    assert uas.caller_saw == ["401 INVITE"]
    authorized(uas)
    assert uas.target_saw == ["INVITE"]
    assert uas.invites[0].get("authorization") is None
    uas.respond(200, body=ANSWER)
    uas.caller_request("ACK", cseq=2)
    start = next(event for event in uas.events if event.kind == "call-start")
    assert start.fields["trunk"] == USER
    uas.caller_request("BYE", cseq=3)
    assert uas.last_response.status == 200


def test_user_who_has_called_is_no_stranger_whose_messages_are_hardly_read(make_bench: BenchMaker) -> None:
    bench = make_bench(
        allow=(), users={USER: PASSWORD}, transport="tcp", limits=Limits(source_unknown_per_s=2.0, unknown_per_s=2.0)
    )
    bench.invite()
    authorized(bench)
    bench.respond(200, body=ANSWER)
    bench.caller_request("ACK", cseq=2)
    for number in range(20):
        bench.caller_request("INFO", cseq=3 + number, body="x", content_type="text/plain")
    assert bench.target_saw.count("INFO") == 20
    assert bench.stack.counters()["dropped"] == 0


def test_md5_is_taken_too(uas: Bench) -> None:
    uas.invite()
    authorized(uas, algorithm="MD5")
    assert uas.target_saw == ["INVITE"]


@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5"])
def test_client_of_somebody_else_proves_itself(uas: Bench, algorithm: str) -> None:
    """The credentials are made by `requests`, from our challenge; it reads SIP URIs where a scheme goes before."""
    uas.invite()
    (asked,) = [one for one in uas.last_response.get_all("www-authenticate") if f"={algorithm}," in one]
    digest = HTTPDigestAuth(USER, PASSWORD)
    digest.init_per_thread_state()
    digest._thread_local.chal = parse_dict_header(asked.partition(" ")[2])
    line = digest.build_digest_header("INVITE", "x:sip:+15550100001@198.51.100.1")
    uas.invite(cseq=2, extra=f"Authorization: {line}")
    assert uas.target_saw == ["INVITE"]


@pytest.mark.parametrize("offered", [("MD5", "SHA-256"), ("MD5",), ("SHA-256",)])
def test_challenge_offers_the_algorithms_that_are_set_in_their_order(
    make_bench: BenchMaker, offered: tuple[str, ...]
) -> None:
    bench = make_bench(allow=(), users={USER: PASSWORD}, transport="tcp", digest_algorithms=offered)
    bench.invite()
    values = bench.last_response.get_all("www-authenticate")
    assert [value.partition("algorithm=")[2].partition(",")[0] for value in values] == list(offered)
    authorized(bench, algorithm=offered[0])
    assert bench.target_saw == ["INVITE"]


def test_algorithm_that_was_not_offered_gets_the_challenge_again(make_bench: BenchMaker) -> None:
    bench = make_bench(allow=(), users={USER: PASSWORD}, transport="tcp", digest_algorithms=("SHA-256",))
    bench.invite()
    authorized(bench, algorithm="MD5")
    assert (bench.last_response.status, bench.target_saw) == (401, [])
    assert "stale" not in (bench.last_response.get("www-authenticate") or "")


@pytest.mark.parametrize(
    "wrong", [{"password": "guess"}, {"username": "nobody"}, {"uri": "sip:+15550100777@198.51.100.1"}]
)
def test_wrong_credentials_get_403(uas: Bench, wrong: dict[str, str]) -> None:
    uas.invite()
    authorized(uas, **wrong)  # type: ignore[arg-type]
    assert uas.last_response.status == 403
    assert uas.target_saw == []


def test_nonce_of_somebody_else_gets_a_new_challenge(uas: Bench) -> None:
    uas.invite()
    authorized(uas, nonce="1000.000-00000000000000000000000000000000")
    assert uas.last_response.status == 401
    assert "stale" not in (uas.last_response.get("www-authenticate") or "")


@pytest.mark.parametrize("nonce", ["²-x", "1e5-x", "nan-0", "", "-", "inf-00"])
def test_nonce_that_is_no_number_of_ours_gets_a_new_challenge(uas: Bench, nonce: str) -> None:
    uas.invite()
    authorized(uas, nonce=nonce or " ")
    assert uas.last_response.status == 401


def test_old_nonce_is_told_to_be_stale(uas: Bench) -> None:
    uas.invite()
    old = nonce_of(uas)
    uas.advance(301)
    authorized(uas, nonce=old)
    assert uas.last_response.status == 401
    assert "stale=true" in (uas.last_response.get("www-authenticate") or "")
    authorized(uas, cseq=3)
    assert uas.target_saw == ["INVITE"]


def test_replayed_credentials_get_a_new_challenge(uas: Bench) -> None:
    uas.invite()
    nonce = nonce_of(uas)
    authorized(uas, nonce=nonce)
    assert len(uas.invites) == 1
    authorized(uas, nonce=nonce, call_id="call-2")
    assert uas.last_response.status == 401
    assert "stale=true" in (uas.last_response.get("www-authenticate") or "")
    authorized(uas, nonce=nonce, call_id="call-3", count=2)
    assert len(uas.invites) == 2


def test_broken_credentials_get_400(uas: Bench) -> None:
    uas.invite(extra='Authorization: Digest realm="trunkline')
    assert uas.last_response.status == 400


@pytest.mark.parametrize("method", ["OPTIONS", "REGISTER", "MESSAGE", "BYE", "REFER"])
def test_other_requests_of_an_unknown_source_get_silence(uas: Bench, method: str) -> None:
    uas.caller_request(method)
    assert uas.caller_saw == []


def test_sources_in_the_allow_list_and_of_trunks_are_not_asked(make_bench: BenchMaker) -> None:
    everywhere = network("0.0.0.0", "255.255.255.255")
    for options in ({"allow": (everywhere,)}, {"allow": (), "trunks": (Trunk("carrier", (everywhere,)),)}):
        bench = make_bench(users={USER: PASSWORD}, **options)
        bench.invite()
        assert bench.target_saw == ["INVITE"]


def test_cancel_of_a_user_is_taken(uas: Bench) -> None:
    uas.invite()
    authorized(uas)
    uas.respond(180)
    branch = uas.last_response.via.branch
    uas.caller_request("CANCEL", branch=branch, cseq=2)
    assert uas.caller_saw[-2:] == ["200 CANCEL", "487 INVITE"]


def test_request_in_a_users_dialog_from_another_address_gets_silence(uas: Bench) -> None:
    uas.invite()
    authorized(uas)
    uas.respond(200, body=ANSWER)
    uas.caller_request("ACK", cseq=2)
    other = Bench().caller_flow
    other.remote = ("192.0.2.99", 5060)
    before = len(uas.wire)
    uas.caller_request("BYE", cseq=3, flow=other)
    assert len(uas.wire) == before
    assert uas.stack.calls_in_progress == 1


def test_refusals_for_lack_of_credentials_hold_no_memory(uas: Bench) -> None:
    for number in range(50):
        uas.invite(call_id=f"call-{number}", tag=f"t{number}")
    uas.advance(200)
    tables = uas.stack.tables()
    assert [tables[name] for name in ("calls", "legs", "timers", "server_transactions", "rejections")] == [0] * 5


def test_invite_with_credentials_is_neither_merged_with_the_first_nor_a_repeated_rejection(uas: Bench) -> None:
    """It has the same Call-ID and From tag and the next CSeq (RFC 3261 section 8.1.3.5)."""
    uas.invite()
    authorized(uas)
    assert uas.caller_saw == ["401 INVITE", "100 INVITE"]
