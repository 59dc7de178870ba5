"""What a whole call costs inside the stack, without sockets: `python -m benchmarks.callpath`.

A caller of Twilio's shape, a target that rings and answers, ACK and BYE: 7 messages in, 7 out.
The clock goes on as at a steady rate, so that timers fire and transactions end as they do in life.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import os
import pstats
import statistics
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import process_time

from proxy.b2bua.config import Network, RetryPolicy, StackConfig, Target
from proxy.b2bua.effects import Open, Resolve, Send
from proxy.b2bua.limits import Limits
from proxy.b2bua.stack import Stack
from proxy.rewrite.engine import RuleSet
from proxy.rulefiles import load_file
from proxy.sip import message as sip_message
from proxy.sip.flow import Flow, Hop
from proxy.sip.uri import parse_uri

RULES = Path(__file__).resolve().parents[1] / "rules"
RATE = 100.0
OURS = ("198.51.100.1", 5060)
CALLER = ("192.0.2.10", 5060)
TARGET = ("203.0.113.5", 5060)

_INVITE_HEAD = """INVITE sip:+15550100001@198.51.100.1:5060 SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-{n}-1
From: <sip:+15550100002@trunk.pstn.example.net:5060>;tag={n}_uac
To: <sip:+15550100001@198.51.100.1:5060>
CSeq: 29044 INVITE
Max-Forwards: 60
P-Asserted-Identity: <sip:+15550100002@198.51.100.12:5060>
Diversion: <sip:+15550100001@twilio.example>;reason=unconditional
Call-ID: {n}-1311@192.0.2.10
Contact: <sip:+15550100002@192.0.2.10:5060;transport=UDP>
Allow: ACK,BYE,CANCEL,INVITE,OPTIONS,REFER,NOTIFY
X-Twilio-AccountSid: AC00000000000000000000000000000000
X-Twilio-CallSid: CA{n}
User-Agent: Twilio Gateway
Content-Type: application/sdp
Content-Length: {length}

"""
_OFFER = """v=0
o=root 1311022221 1311022221 IN IP4 172.18.165.214
s=Twilio Media Gateway
c=IN IP4 203.0.113.121
t=0 0
m=audio 12692 RTP/AVP 0 8 101
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=maxptime:20
a=sendrecv
"""
_ANSWER = """v=0
o=- 2113971860 2113971862 IN IP4 203.0.113.219
s=OAI
c=IN IP4 203.0.113.219
t=0 0
m=audio 43955 RTP/AVP 0 101
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=rtpmap:0 PCMU/8000
"""
_REQUEST = """{method} sip:trunkline@198.51.100.1:5060 SIP/2.0
Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-{n}-{seq}{method}
From: <sip:+15550100002@trunk.pstn.example.net:5060>;tag={n}_uac
To: <sip:+15550100001@198.51.100.1:5060>;tag={tag}
CSeq: {seq} {method}
Max-Forwards: 70
Call-ID: {n}-1311@192.0.2.10
{extra}Content-Length: 0

"""


def _wire(text: str) -> str:
    return text.replace("\n", "\r\n")


INVITE_HEAD, OFFER, ANSWER, REQUEST = _wire(_INVITE_HEAD), _wire(_OFFER), _wire(_ANSWER), _wire(_REQUEST)
REASON = 'Reason: Q.850;cause=16;text="Normal call clearing"\r\n'


class Driver:
    """Plays both neighbours of a stack and counts the CPU time spent inside of it.

    Args:
        rules: the rule set of calls.
        rate: calls a second by the driver's clock: so many transactions are alive as at that rate.
        retry: the retry policy.
        clock: what time is told by; reading the CPU's clock costs more than some steps do.
    """

    def __init__(
        self,
        rules: RuleSet,
        rate: float = RATE,
        retry: RetryPolicy | None = None,
        clock: Callable[[], float] = process_time,
    ) -> None:
        everywhere = (Network(4, 0, 2**32 - 1, "0.0.0.0/0"),)
        self._numbers = iter(range(1, 10**9))
        self._pace_s = 1.0 / rate
        self._clock = clock
        self.stack = Stack(
            StackConfig(
                targets={"main": Target("main", parse_uri("sip:agent@203.0.113.5"))},
                rules={rules.name: rules},
                default_rules=rules.name,
                allow=everywhere,
                public_address=OURS[0],
                retry=retry if retry is not None else RetryPolicy(),
                max_calls=1_000_000,
                limits=Limits(source_invites_per_s=0.0, invites_per_s=0.0),
            ),
            lambda: os.urandom(10).hex(),
            lambda: 0.5,
        )
        ours = f"{OURS[0]}:{OURS[1]}"
        self.caller = Flow("udp", OURS, CALLER, ours, listener="udp")
        self.target = Flow("udp", OURS, TARGET, ours, listener="udp")
        self.now = 1000.0
        self.spent = 0.0
        self.by_step: Counter[str] = Counter()
        self.events = 0
        self._to_caller: list[bytes] = []
        self._to_target: list[bytes] = []
        self.profile: cProfile.Profile | None = None

    def _receive(self, label: str, data: bytes, flow: Flow) -> None:
        self._step(label, lambda: self.stack.receive(data, flow, self.now))

    def _pass(self, seconds: float) -> None:
        """Let time go by."""
        self.now += seconds
        self._step("timers", lambda: self.stack.handle_timers(self.now))

    def _step(self, label: str, work: Callable[[], None]) -> None:
        """Have the stack do something, and then what its effects ask for."""
        stack = self.stack
        self._to_caller, self._to_target = [], []
        profile = self.profile
        if profile is not None:
            profile.enable()
        began = self._clock()
        work()
        effects = stack.take_effects()
        spent = self._clock() - began
        if profile is not None:
            profile.disable()
        while effects:
            answers: list[tuple[bool, int]] = []
            for effect in effects:
                if isinstance(effect, Send):
                    (self._to_caller if effect.flow is self.caller else self._to_target).append(effect.data)
                elif isinstance(effect, Resolve):
                    answers.append((True, effect.token))
                elif isinstance(effect, Open):
                    answers.append((False, effect.token))
                else:
                    self.events += 1
            if profile is not None:
                profile.enable()
            began = self._clock()
            for resolve, token in answers:
                if resolve:
                    stack.resolved(token, [_HOP], self.now)
                else:
                    stack.flow_opened(token, self.target, self.now)
            effects = stack.take_effects()
            spent += self._clock() - began
            if profile is not None:
                profile.disable()
        self.spent += spent
        self.by_step[label] += round(spent * 1e9)

    def hold(self, refusals: int = 0) -> tuple[str, list[str]]:
        """Place one call and have it answered, after so many attempts that the target refuses.

        Returns its number with our tag, and the lines of the INVITE that was answered.
        """
        n = str(next(self._numbers))
        self._pass(self._pace_s)
        invite = (INVITE_HEAD.format(n=n, length=len(OFFER)) + OFFER).encode()
        self._receive("INVITE", invite, self.caller)
        lines = self._to_target[0].decode().split("\r\n")
        for _ in range(refusals):
            self._respond("503", lines, "503 Service Unavailable", f";tag={n}_uas")
            while not any(data.startswith(b"INVITE") for data in self._to_target):
                self._pass(0.01)
            lines = self._to_target[-1].decode().split("\r\n")
        self._respond("100", lines, "100 Trying", "")
        self._respond("180", lines, "180 Ringing", f";tag={n}_uas")
        self._respond("200", lines, "200 OK", f";tag={n}_uas", ANSWER)
        reply = self._to_caller[-1].decode()
        tag = reply.partition("\r\nTo: ")[2].partition("\r\n")[0].rpartition("tag=")[2]
        self._receive("ACK", REQUEST.format(method="ACK", n=n, seq=29044, tag=tag, extra="").encode(), self.caller)
        return f"{n} {tag}", lines

    def call(self, refusals: int = 0) -> None:
        """One whole call."""
        name, lines = self.hold(refusals)
        n, _, tag = name.partition(" ")
        bye = REQUEST.format(method="BYE", n=n, seq=29045, tag=tag, extra=REASON)
        self._receive("BYE", bye.encode(), self.caller)
        lines = self._to_target[0].decode().split("\r\n")
        self._respond("200 BYE", lines, "200 OK", "")

    def _respond(self, label: str, lines: list[str], status: str, tag: str, body: str = "") -> None:
        out = [f"SIP/2.0 {status}"]
        for line in lines:
            if line.startswith(("Via:", "From:", "Call-ID:", "CSeq:")):
                out.append(line)
            elif line.startswith("To:"):
                out.append(line + tag)
        out += ["Contact: <sip:OAI@203.0.113.5:5060>", f"Content-Length: {len(body)}", "", body]
        self._receive(label, "\r\n".join(out).encode(), self.target)


_HOP = Hop("udp", TARGET[0], TARGET[1])


def measure(driver: Driver, calls: int, rounds: int, refusals: int = 0) -> list[float]:
    """Microseconds per call inside the stack, a figure a round."""
    figures: list[float] = []
    for _ in range(rounds):
        driver.spent = 0.0
        for _ in range(calls):
            driver.call(refusals)
        figures.append(driver.spent / calls * 1e6)
    return figures


def is_compiled() -> bool:
    """Whether the core that is imported is the compiled one."""
    return not str(sys.modules[sip_message.__name__].__file__).endswith(".py")


def main() -> None:
    """Print the figures, or a profile."""
    parser = argparse.ArgumentParser(description="CPU of one whole call inside the stack, without sockets.")
    parser.add_argument("--calls", type=int, default=1000, help="calls a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rules", default="twilio-openai")
    parser.add_argument("--profile", action="store_true", help="print where time goes instead")
    parser.add_argument("--sampled", action="store_true", help="place calls for a sampling profiler, and print nothing")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rules = load_file(RULES / f"{options.rules}.yaml")
    if options.sampled:
        measure(Driver(rules, clock=lambda: 0.0), options.calls, options.rounds)
        return
    driver = Driver(rules)
    gc.collect()
    gc.freeze()
    gc.disable()
    measure(driver, 3500, 1)  # past 64*T1, so that transactions end as fast as new ones begin
    if options.profile:
        driver.profile = cProfile.Profile()
        measure(driver, options.calls, 1)
        stats = pstats.Stats(driver.profile)
        stats.sort_stats("tottime").print_stats(45)
        return
    driver.by_step.clear()
    began = process_time()
    figures = measure(driver, options.calls, options.rounds)
    process = process_time() - began
    count = options.calls * options.rounds
    result = {
        "us_per_call_best": round(min(figures), 1),
        "us_per_call_median": round(statistics.median(figures), 1),
        "by_step_us": {label: round(spent / count / 1e3, 1) for label, spent in driver.by_step.items()},
        "us_with_driver": round(process / count * 1e6, 1),
        "events_per_call": round(driver.events / (count + 3500), 1),
        "compiled": is_compiled(),
        "rules": options.rules,
    }
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:20} {value}")


if __name__ == "__main__":
    main()
