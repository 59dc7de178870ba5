"""SIPp scenarios composed from steps, so that each test says what its two sides do and nothing else."""

from __future__ import annotations

from html import escape
from pathlib import Path

__all__ = ["ANSWER", "HELD", "OFFER", "RECVONLY", "RESEND_MS", "Callee", "Caller", "Script"]

OFFER = """v=0
o=- 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 0 8 101
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=sendrecv
"""
ANSWER = OFFER.replace(" 0 8 101", " 0 101").replace("a=rtpmap:8 PCMA/8000\n", "")
HELD = OFFER.replace("sendrecv", "sendonly").replace("o=- 1 1", "o=- 1 2")

RECVONLY = ANSWER.replace("sendrecv", "recvonly").replace("o=- 1 1", "o=- 1 2")

RESEND_MS = 4000
"""When SIPp sends again over UDP. It takes the answer to a repetition for a fault, so it must not send one only because
a machine is slow."""

REASONS = {100: "Trying", 180: "Ringing", 183: "Session Progress", 200: "OK", 202: "Accepted", 491: "Request Pending"}


class Script:
    """One side of a call. Methods add steps; `write` makes the file."""

    def __init__(self) -> None:
        self._steps: list[str] = []
        self._cseq = 0
        self._invite_cseq = 0
        self._variables: set[str] = set()
        self._checks = 0
        self._labels = 0
        self._answered = False

    def write(self, directory: Path, name: str) -> Path:
        """Write the scenario and return its path."""
        references = f'  <Reference variables="{",".join(sorted(self._variables))}"/>\n' if self._variables else ""
        path = directory / f"{name}.xml"
        body = "".join(self._steps) + references
        path.write_text(f'<?xml version="1.0" encoding="UTF-8"?>\n<scenario name="{name}">\n{body}</scenario>\n')
        return path

    def ack_failure(self) -> None:
        """Acknowledge a failure of our re-INVITE, hop by hop."""
        lines = ["ACK [$target] SIP/2.0", "[last_Via:]", *self._identity(), f"CSeq: {self._invite_cseq} ACK"]
        self._send([*lines, "Max-Forwards: 70"], "", retrans=False)

    def pause(self, ms: int) -> None:
        """Do nothing for a while."""
        self._steps.append(f'  <pause milliseconds="{ms}"/>\n')

    def _send(self, lines: list[str], body: str, *, retrans: bool) -> None:
        if body and not any(line.lower().startswith("content-type") for line in lines):
            lines.append("Content-Type: application/sdp")
        lines.append("Content-Length: [len]")
        text = "\n".join(lines) + "\n\n" + body
        attribute = f' retrans="{RESEND_MS}"' if retrans else ""
        self._steps.append(f"  <send{attribute}>\n    <![CDATA[\n{text}\n    ]]>\n  </send>\n")

    def _capture(self, header: str, variable: str, pattern: str = ".*") -> str:
        self._variables.add(variable)
        return (
            f'      <ereg regexp="{escape(pattern, quote=True)}" search_in="hdr" header="{header}" '
            f'assign_to="{variable}"/>\n'
        )

    def _check(self, header: str, pattern: str) -> str:
        self._checks += 1
        variable = f"check{self._checks}"
        self._variables.add(variable)
        where = 'search_in="body"' if header == "body" else f'search_in="hdr" header="{header}:"'
        return f'      <ereg regexp="{escape(pattern, quote=True)}" {where} check_it="true" assign_to="{variable}"/>\n'

    def _recv(self, what: str, actions: str, *, optional: bool = False) -> None:
        attributes = what + (' optional="true"' if optional else "")
        inside = f"\n    <action>\n{actions}    </action>\n  " if actions else ""
        self._steps.append(f"  <recv {attributes}>{inside}</recv>\n")

    def request(self, method: str, *headers: str, body: str = "", cseq: int | None = None) -> None:
        """Send a request in the dialog."""
        if cseq is None:
            self._cseq += 1
            cseq = self._cseq
        if method == "INVITE":
            self._invite_cseq = cseq
        lines = [
            f"{method} [$target] SIP/2.0",
            "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]",
            *self._identity(),
            f"CSeq: {cseq} {method}",
            "Max-Forwards: 70",
            *([self._contact()] if method in ("INVITE", "UPDATE", "REFER", "NOTIFY") else []),
            *headers,
        ]
        self._send(lines, body, retrans=method != "ACK")

    def _identity(self) -> list[str]:
        """From, To and Call-ID of a request in the dialog."""
        return ["From:[$local];tag=[call_number]_callee", "To:[$remote]", "Call-ID: [call_id]"]

    def _contact(self) -> str:
        return "Contact: <sip:peer@[local_ip]:[local_port];transport=[transport]>"

    def ack(self, body: str = "") -> None:
        """Acknowledge the 2xx of our last INVITE."""
        self.request("ACK", body=body, cseq=self._invite_cseq)

    def expect(self, status: int, *, optional: bool = False, learn: bool = True, **checks: str) -> None:
        """Wait for a response. `checks`: a pattern by header name (`_` for `-`), or for `body`.

        The first ones to the INVITE that begins the call tell the dialog, unless `learn` is off.
        """
        actions = "".join([self._check(name.replace("_", "-"), pattern) for name, pattern in checks.items()])
        if status >= 180 and self._invite_cseq == 1 and self._cseq == 1 and not optional and learn:
            actions += self._learn()
        self._recv(f'response="{status}"', actions, optional=optional)

    def expect_challenge(self) -> None:
        """Wait for a 401 whose first challenge the next request is to answer."""
        self._recv('response="401" auth="true"', "")

    def expect_reliable(self, status: int) -> None:
        """Wait for a reliable provisional response, and note its RSeq for `prack`."""
        actions = self._check("Require", "100rel") + self._capture("RSeq:", "rseq") + self._learn()
        self._recv(f'response="{status}"', actions)

    def prack(self) -> None:
        """Acknowledge it."""
        self.request("PRACK", "RAck:[$rseq] 1 INVITE")

    def _learn(self) -> str:
        return ""

    def take(self, method: str, **checks: str) -> None:
        """Wait for a request. `checks` as in `expect`."""
        actions = "".join([self._check(name.replace("_", "-"), pattern) for name, pattern in checks.items()])
        if method == "INVITE":
            for header, variable in (("Via:", "via"), ("From:", "from"), ("To:", "to"), ("CSeq:", "cseq")):
                actions += self._capture(header, variable)
        actions += self._learn_request(method)
        self._recv(f'request="{method}"', actions)

    def _learn_request(self, method: str) -> str:
        return ""

    def answer(self, status: int, *headers: str, body: str = "") -> None:
        """Answer the request that came last (not an INVITE)."""
        lines = [f"SIP/2.0 {status} {REASONS.get(status, 'Phrase')}", "[last_Via:]", "[last_From:]", "[last_To:]"]
        lines += ["[last_Call-ID:]", "[last_CSeq:]", self._contact(), *headers]
        self._send(lines, body, retrans=False)

    def answer_until_bye(self, method: str, status: int, **checks: str) -> None:
        """Answer every request of one method alike until the BYE comes, and answer that. `checks`: of the BYE."""
        again, seen = self._label(), self._label()
        self._steps.append(f'  <label id="{again}"/>\n')
        self._recv(f'request="{method}" next="{seen}"', "", optional=True)
        self.take("BYE", **checks)
        self.answer(200)
        end = self._label()
        self._steps.append(f'  <nop next="{end}"/>\n  <label id="{seen}"/>\n')
        self.answer(status)
        self._steps.append(f'  <nop next="{again}"/>\n  <label id="{end}"/>\n')

    def _label(self) -> int:
        self._labels += 1
        return self._labels

    def answer_invite(self, status: int, *headers: str, body: str = "", tag: str = "") -> None:
        """Answer the INVITE that came last, whatever came since; `tag` for a fork's own one."""
        lines = [f"SIP/2.0 {status} {REASONS.get(status, 'Phrase')}", "Via:[$via]", "From:[$from]"]
        ours = f";tag={tag}" if tag else self._to_tag(status)
        self._answered = self._answered or 200 <= status < 300
        lines += ["To:[$to]" + ours, "Call-ID: [call_id]", "CSeq:[$cseq]", self._contact(), *headers]
        self._send(lines, body, retrans=status >= 200)

    def _to_tag(self, status: int) -> str:
        return ""

    def take_bye(self, **checks: str) -> None:
        """Wait for the BYE and answer it. `checks` as in `expect`."""
        self.take("BYE", **checks)
        self.answer(200)

    def bye(self) -> None:
        """End the call."""
        self.request("BYE")
        self.expect(200)


class Caller(Script):
    """The side that calls: leg A's peer. SIPp's key `case` goes into X-Case."""

    _again = False

    def invite(self, *headers: str, body: str = OFFER, user: str = "+15550100001") -> None:
        """Place the call, to a user of ours or to nobody in particular."""
        uri = f"sip:{user}@[remote_ip]:[remote_port]" if user else "sip:[remote_ip]:[remote_port]"
        self._cseq = self._invite_cseq = 2 if self._again else 1
        lines = [
            f"INVITE {uri} SIP/2.0",
            "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]",
            "From: <sip:+15550100002@trunk.pstn.example.net>;tag=[call_number]_caller",
            "To: <sip:+15550100001@[remote_ip]:[remote_port]>",
            "Call-ID: [call_id]",
            "CSeq: 1 INVITE",
            "Max-Forwards: 60",
            self._contact(),
            "X-Twilio-CallSid: CA[call_number]",
            "X-Case: [case]",
            *headers,
        ]
        self._send([line.replace("CSeq: 1 ", f"CSeq: {self._cseq} ") for line in lines], body, retrans=True)

    def invite_again(self, *headers: str, user: str = "+15550100001") -> None:
        """Place the call again after a refusal that said what was missing."""
        self._again = True
        self.invite(*headers, user=user)

    def ack_refusal(self) -> None:
        """Acknowledge the refusal of the INVITE that was to begin the call."""
        lines = ["ACK sip:+15550100001@[remote_ip]:[remote_port] SIP/2.0", "[last_Via:]", "[last_From:]", "[last_To:]"]
        self._send([*lines, "Call-ID: [call_id]", "CSeq: 1 ACK", "Max-Forwards: 70"], "", retrans=False)

    def expect_answer(self, status: int, **checks: str) -> None:
        """Wait for the answer of a second INVITE, and learn the dialog from it."""
        actions = "".join([self._check(name.replace("_", "-"), pattern) for name, pattern in checks.items()])
        self._recv(f'response="{status}"', actions + self._learn())

    def call(self, *headers: str) -> None:
        """Place the call and have it answered."""
        self.invite(*headers)
        self.expect(100, optional=True)
        self.expect(180, optional=True)
        self.expect(200)
        self.ack()

    def _identity(self) -> list[str]:
        sender = "From: <sip:+15550100002@trunk.pstn.example.net>;tag=[call_number]_caller"
        return [sender, "To:[$remote]", "Call-ID: [call_id]"]

    def _learn(self) -> str:
        return (
            self._capture("To:", "remote")
            + self._capture("To:", "our_tag", "[^=;]*$")
            + self._capture("Contact:", "target", "sip:[^>]*")
        )


class Callee(Script):
    """The side that is called: leg B's peer."""

    def call(self, *headers: str) -> None:
        """Take the call and answer it."""
        self.take("INVITE")
        self.answer_invite(180)
        self.answer_invite(200, *headers, body=ANSWER)
        self.take("ACK")

    def _learn_request(self, method: str) -> str:
        if method != "INVITE" or "remote" in self._variables:
            return ""
        return (
            self._capture("From:", "remote")
            + self._capture("From:", "our_tag", "[^=;]*$")
            + self._capture("To:", "local")
            + self._capture("Contact:", "target", "sip:[^>]*")
        )

    def _to_tag(self, status: int) -> str:
        # Until it was answered the INVITE has a To without our tag.
        return ";tag=[call_number]_callee" if status > 100 and not self._answered else ""
