"""Requests that are too large for UDP (RFC 3261 section 18.1.1)."""

from __future__ import annotations

from proxy.b2bua.effects import Effect, Open
from proxy.sip.flow import Flow
from tests.support.bench import OURS, TARGET, Bench

LONG = "X-Long: " + "x" * 1300


class TcpBench(Bench):
    """A bench whose target listens by UDP, and by TCP if `takes_tcp`."""

    takes_tcp = True

    def _perform(self, effect: Effect) -> None:
        if not isinstance(effect, Open) or effect.hop.transport != "tcp":
            super()._perform(effect)
        elif self.takes_tcp:
            self.opened.append(effect.hop)
            flow = Flow("tcp", OURS, TARGET, "198.51.100.1:5060")
            self.stack.flow_opened(effect.token, flow, self.now)
        else:
            self.opened.append(effect.hop)
            self.stack.flow_failed(effect.token, "connection refused", self.now)

    def invite_transports(self) -> list[str]:
        return [invite.via.transport for invite in self.invites]


def test_a_large_invite_goes_by_tcp_where_the_target_takes_it() -> None:
    bench = TcpBench()
    bench.invite(extra=LONG)
    assert bench.invite_transports() == ["TCP"]
    assert bench.invites[0].contact is not None
    assert bench.invites[0].contact.uri.param("transport") == "tcp"
    [noted] = [event for event in bench.events if event.kind == "large-message"]
    assert noted.fields["by"] == "tcp"
    assert int(str(noted.fields["size"])) > 1300


def test_it_goes_by_udp_after_all_where_tcp_is_refused_and_tcp_is_not_tried_again() -> None:
    bench = TcpBench()
    bench.takes_tcp = False
    bench.invite(extra=LONG)
    bench.invite(extra=LONG, call_id="call-2")
    assert bench.invite_transports() == ["UDP", "UDP"]
    assert [hop.transport for hop in bench.opened].count("tcp") == 1


def test_a_target_that_names_udp_gets_udp() -> None:
    bench = TcpBench(target="sip:agent@203.0.113.5;transport=udp")
    bench.invite(extra=LONG)
    assert bench.invite_transports() == ["UDP"]


def test_small_requests_stay_with_udp() -> None:
    bench = TcpBench()
    bench.invite()
    assert bench.invite_transports() == ["UDP"]
    assert "large-message" not in bench.kinds()


def test_the_offer_still_crosses_after_the_change_of_transport() -> None:
    bench = TcpBench()
    bench.invite(extra=LONG)
    bench.respond(200, body=bench.invites[0].body.decode())
    assert bench.caller_saw[-1] == "200 INVITE"
