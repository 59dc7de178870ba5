"""`trunkline sim openai` and `trunkline sim twilio`. What they need is imported when they run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

if TYPE_CHECKING:
    from proxy.sim.openai import OpenAiConfig
    from proxy.sim.twilio import TwilioConfig

__all__ = ["add_sim_commands"]

_FAILED: Final = 1
_BAD_SETTINGS: Final = 2
_FAULTS: Final = "Faults (shares from 0 to 1, drawn for each INVITE)"
_REFUSALS: Final = "Refusals of what the real door was seen, or may be feared, to refuse"
_WEBHOOK: Final = "Webhook"
_MEDIA: Final = "Media"
_TLS: Final = "TLS"


class Transport(StrEnum):
    """What calls go over."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


class Security(StrEnum):
    """What the offer asks for."""

    RTP = "rtp"
    SRTP = "srtp"


class Side(StrEnum):
    """Who hangs up."""

    CALLER = "caller"
    CALLEE = "callee"


def _share(name: str, text: str, panel: str = _FAULTS) -> Any:
    return typer.Option(f"--{name}", min=0, max=1, metavar="SHARE", help=text, rich_help_panel=panel)


def _ms(name: str, text: str, panel: str | None = None) -> Any:
    return typer.Option(f"--{name}", min=0, metavar="MS", help=text, rich_help_panel=panel)


def _switch(name: str, text: str) -> Any:
    return typer.Option(f"--{name}", help=text, rich_help_panel=_REFUSALS)


ReportFile = Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Write the report there, as JSON.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed repeats the same run.")]


def add_sim_commands(app: typer.Typer) -> None:
    """Add `sim openai` and `sim twilio` to a command line."""
    sim = typer.Typer(
        help="Simulate a neighbour, with its real defects: for tests, demonstrations and load.", no_args_is_help=True
    )
    sim.command("openai")(openai)
    sim.command("twilio")(twilio)
    app.add_typer(sim, name="sim")


def openai(
    listen: Annotated[
        list[str] | None,
        typer.Option("--listen", metavar="TRANSPORT:ADDRESS:PORT", help="Repeatable. Default: tls:127.0.0.1:5061."),
    ] = None,
    answer_after: Annotated[
        float | None, _ms("answer-after", "Answer by itself after that time, without an HTTP accept.")
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(
            "--http", metavar="ADDRESS:PORT", help="HTTP API: accept, reject, hangup, refer; GET /sim/report."
        ),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option("--api-key", metavar="KEY", help="Bearer token that the HTTP API demands.")
    ] = None,
    ringing_after: Annotated[float | None, _ms("ringing-after", "Send 180 after that time.")] = None,
    accept_timeout: Annotated[float, _ms("accept-timeout", "400 when no accept came in that time.")] = 10_000,
    call_length: Annotated[float | None, _ms("call-length", "Hang up that long after the ACK.")] = None,
    reinvite_after: Annotated[float | None, _ms("reinvite-after", "Send a re-INVITE that long after the ACK.")] = None,
    contact: Annotated[
        str | None, typer.Option("--contact", metavar="HOST[:PORT]", help="What our Contact names.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", metavar="SECONDS", min=0, help="Stop after that time.")
    ] = None,
    report: ReportFile = None,
    as_json: AsJson = False,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", metavar="FILE", help="PEM chain.", rich_help_panel=_TLS)
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="PEM key.", rich_help_panel=_TLS)] = None,
    certificate_dir: Annotated[
        Path | None,
        typer.Option(
            "--certificate-dir",
            metavar="DIR",
            help="Where a certificate of its own goes, with its CA as ca.pem.",
            rich_help_panel=_TLS,
        ),
    ] = None,
    webhook_url: Annotated[
        str | None,
        typer.Option("--webhook-url", metavar="URL", help="Where incoming calls are told.", rich_help_panel=_WEBHOOK),
    ] = None,
    webhook_secret: Annotated[
        str | None,
        typer.Option("--webhook-secret", metavar="whsec_…", help="Signs the webhook.", rich_help_panel=_WEBHOOK),
    ] = None,
    webhook_type: Annotated[
        str,
        typer.Option(
            "--webhook-type",
            metavar="TYPE",
            help="realtime.call.incoming or live.transport.incoming.",
            rich_help_panel=_WEBHOOK,
        ),
    ] = "realtime.call.incoming",
    media_address: Annotated[
        str, typer.Option("--media-address", metavar="ADDRESS", help="In c= and o=.", rich_help_panel=_MEDIA)
    ] = "127.0.0.1",
    codec: Annotated[
        list[str] | None,
        typer.Option(
            "--codec", metavar="NAME", help="Taken. Repeatable. Default: PCMU PCMA opus.", rich_help_panel=_MEDIA
        ),
    ] = None,
    seed: Seed = 0,
    bad_request: Annotated[float, _share("bad-request", "400 Bad Request, without a webhook.")] = 0.0,
    bad_request_every: Annotated[
        int, typer.Option("--bad-request-every", metavar="N", min=0, help="Each n-th.", rich_help_panel=_FAULTS)
    ] = 0,
    invalid_sdp: Annotated[float, _share("invalid-sdp", "400 Invalid SDP offer, whatever the offer.")] = 0.0,
    unavailable: Annotated[float, _share("unavailable", "503 with Retry-After.")] = 0.0,
    retry_after: Annotated[
        int,
        typer.Option("--retry-after", metavar="SECONDS", min=0, help="Of the 503.", rich_help_panel=_FAULTS),
    ] = 1,
    server_error: Annotated[float, _share("server-error", "500.")] = 0.0,
    silent: Annotated[float, _share("silent", "No answer at all.")] = 0.0,
    trying_only: Annotated[float, _share("trying-only", "100, and nothing more.")] = 0.0,
    reset: Annotated[float, _share("reset", "Reset the connection.")] = 0.0,
    late_webhook: Annotated[float, _share("late-webhook", "The webhook leaves late.")] = 0.0,
    late_webhook_by: Annotated[int, _ms("late-webhook-by", "How late.", _FAULTS)] = 0,
    accept_failure: Annotated[
        float, _share("accept-failure", "The accept succeeds, and the INVITE ends in 400 all the same.")
    ] = 0.0,
    answer_cancelled: Annotated[float, _share("answer-cancelled", "A CANCEL crosses with a 200.")] = 0.0,
    answer_cancelled_after: Annotated[int, _ms("answer-cancelled-after", "How late that 200 is.", _FAULTS)] = 0,
    lose_refer: Annotated[
        bool, typer.Option("--lose-refer", help="HTTP refer sends no REFER.", rich_help_panel=_FAULTS)
    ] = False,
    strict: Annotated[
        bool, _switch("strict", "All of these, and codecs other than PCMU, PCMA, telephone-event.")
    ] = False,
    allowed_codec: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-codec",
            metavar="NAME",
            help="Invalid SDP offer for an offer with any other. Repeatable.",
            rich_help_panel=_REFUSALS,
        ),
    ] = None,
    reject_duplicate_params: Annotated[
        bool, _switch("reject-duplicate-params", "403 for a URI parameter that stands twice.")
    ] = False,
    reject_duplicate_headers: Annotated[
        bool, _switch("reject-duplicate-headers", "400 for Content-Type, Content-Length … twice.")
    ] = False,
    reject_folding: Annotated[bool, _switch("reject-folding", "400 for folded headers.")] = False,
    reject_odd_sdp: Annotated[
        bool, _switch("reject-odd-sdp", "Invalid SDP offer for WebRTC attributes and dangling rtpmaps.")
    ] = False,
) -> None:
    """Answer calls as OpenAI's SIP endpoint does, until Ctrl-C; then report.

    The 200 is held until the application accepts by POST /v1/realtime/calls/CALL_ID/accept, or for --answer-after.
    """
    from proxy.sim.faults import Faults
    from proxy.sim.openai import OpenAiConfig

    if http is None and answer_after is None:
        _fail("nobody could accept a call: give --http ADDRESS:PORT, or --answer-after MS")
    try:
        faults = Faults(
            seed=seed,
            reset=reset,
            silent=silent,
            trying_only=trying_only,
            bad_request=bad_request,
            bad_request_every=bad_request_every,
            invalid_sdp=invalid_sdp,
            unavailable=unavailable,
            retry_after_s=retry_after,
            server_error=server_error,
            codecs=tuple(allowed_codec or ()),
            reject_odd_sdp=reject_odd_sdp,
            reject_duplicate_params=reject_duplicate_params,
            reject_duplicate_headers=reject_duplicate_headers,
            reject_folding=reject_folding,
            late_webhook=late_webhook,
            late_webhook_ms=late_webhook_by,
            accept_failure=accept_failure,
            answer_cancelled=answer_cancelled,
            answer_cancelled_ms=answer_cancelled_after,
            lose_refer=lose_refer,
        )
        config = OpenAiConfig(
            listen=tuple(listen or ("tls:127.0.0.1:5061",)),
            certificate=certificate,
            key=key,
            certificate_dir=certificate_dir,
            http=http,
            api_key=api_key,
            webhook_url=webhook_url,
            webhook_secret=webhook_secret,
            webhook_type=webhook_type,
            answer_after_ms=answer_after,
            accept_timeout_ms=accept_timeout,
            ringing_after_ms=ringing_after,
            call_ms=call_length,
            reinvite_after_ms=reinvite_after,
            contact_host=contact,
            media_address=media_address,
            codecs=tuple(codec or ("PCMU", "PCMA", "opus")),
            faults=faults.strict() if strict else faults,
        )
    except ValueError as error:
        _fail(str(error))
    _run_openai(config, duration, report, as_json)


def twilio(
    target: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="URI",
            help="Where calls go, e.g. sip:127.0.0.1:5060 or 'sip:localhost:5061;transport=tls'. Without a user part "
            "each call has a number of its own.",
        ),
    ],
    calls: Annotated[int, typer.Option("--calls", "-n", min=1, help="How many.")] = 1,
    rate: Annotated[float, typer.Option("--rate", "-r", min=0.001, help="Calls a second.")] = 10.0,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=0, help="Calls in progress above which new ones wait. 0: no limit.")
    ] = 0,
    transport: Annotated[
        Transport | None, typer.Option("--transport", "-t", help="Default: as the target says.")
    ] = None,
    next_hop: Annotated[
        str | None, typer.Option("--next-hop", metavar="ADDRESS:PORT", help="Send there, whatever the target says.")
    ] = None,
    connections: Annotated[
        int, typer.Option("--connections", min=1, help="TCP or TLS connections to spread over.")
    ] = 1,
    hold: Annotated[float, _ms("hold", "From the answer to the BYE.")] = 1000,
    hang_up: Annotated[Side, typer.Option("--hang-up", help="Who sends the BYE.")] = Side.CALLER,
    cancel_share: Annotated[float, _share("cancel-share", "Calls that are cancelled.", "Odd calls")] = 0.0,
    cancel_after: Annotated[float, _ms("cancel-after", "How long after the INVITE.", "Odd calls")] = 500,
    problem_share: Annotated[float, _share("problem-share", "INVITEs with a problem.", "Odd calls")] = 0.0,
    problem: Annotated[
        list[str] | None,
        typer.Option(
            "--problem",
            metavar="KIND",
            help="Kinds of problems, in turn. Repeatable. Default: all. --problem list names them.",
            rich_help_panel="Odd calls",
        ),
    ] = None,
    media: Annotated[Security, typer.Option("--media", help="What the offer asks for.")] = Security.SRTP,
    patience: Annotated[
        float, typer.Option("--patience", metavar="SECONDS", min=0.1, help="Wait for an answer at most that long.")
    ] = 60.0,
    edge: Annotated[
        str | None,
        typer.Option("--edge", metavar="HOST:PORT", help="In our Via and Record-Route, in place of the default."),
    ] = None,
    seed: Seed = 0,
    ca_file: Annotated[
        str | None, typer.Option("--ca-file", metavar="FILE", help="PEM CAs to trust.", rich_help_panel=_TLS)
    ] = None,
    server_name: Annotated[
        str | None,
        typer.Option(
            "--server-name", metavar="NAME", help="The certificate's. Default: the target's.", rich_help_panel=_TLS
        ),
    ] = None,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Trust anyone.", rich_help_panel=_TLS)] = False,
    allow_public: Annotated[
        bool, typer.Option("--allow-public", help="Permit a target that is not on loopback. Real calls cost money.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report there as a page with plots.")
    ] = None,
    report: ReportFile = None,
    report_calls: Annotated[bool, typer.Option("--report-calls", help="Each single call too in the JSON.")] = False,
    as_json: AsJson = False,
) -> None:
    """Place calls of the shape of Twilio's trunks, and report what became of them.

    Ctrl-C ends the calls in progress and reports. Exit code 0 when every call was answered (or cancelled as asked), the
    rate was kept and nothing unexpected came, else 1.
    """
    from proxy.sim.shape import PROBLEMS
    from proxy.sim.twilio import TwilioConfig

    if problem == ["list"]:
        typer.echo("\n".join(PROBLEMS))
        return
    try:
        config = TwilioConfig(
            target=target,
            next_hop=next_hop,
            transport=transport.value if transport is not None else None,
            calls=calls,
            rate=rate,
            concurrency=concurrency,
            connections=connections,
            hold_ms=hold,
            hang_up=hang_up.value,
            cancel_share=cancel_share,
            cancel_after_ms=cancel_after,
            problem_share=problem_share,
            problems=tuple(problem or PROBLEMS),
            media_security=media.value,
            patience_s=patience,
            seed=seed,
            ca_file=ca_file,
            verify=not no_verify,
            server_name=server_name,
            edge=edge,
            allow_public=allow_public,
        )
    except ValueError as error:
        _fail(str(error))
    _run_twilio(config, _Reports(report, html, as_json, report_calls))


@dataclass(frozen=True, slots=True)
class _Reports:
    """Where the report of a run goes."""

    json_file: Path | None
    page: Path | None
    as_json: bool
    with_calls: bool

    def check(self) -> None:
        """Raise ValueError for a file that could not be written: before the calls, not after them."""
        for file in (self.json_file, self.page):
            if file is not None and (file.is_dir() or not file.resolve().parent.is_dir()):
                raise ValueError(
                    f"{file} can't be written: {'it is a directory' if file.is_dir() else 'no such directory'}"
                )


def _fail(text: str) -> NoReturn:
    typer.echo(f"trunkline: {text}", err=True)
    raise typer.Exit(_BAD_SETTINGS)


def _run_openai(config: OpenAiConfig, duration_s: float | None, file: Path | None, as_json: bool) -> None:
    import uvloop

    from proxy.sim.console import serve_openai, write_report

    try:
        report = uvloop.run(serve_openai(config, duration_s))
        write_report(report, file, as_json=as_json, title="What OpenAI saw")
    except OSError as error:
        _fail(error.strerror or str(error))
    except ValueError as error:
        _fail(str(error))


def _run_twilio(config: TwilioConfig, reports: _Reports) -> None:
    import uvloop

    from proxy.sim.console import place_twilio, show_placed, write_report
    from proxy.sim.page import write_page
    from proxy.sim.twilio import PublicTarget

    try:
        reports.check()
        report = uvloop.run(place_twilio(config))
        values = report.to_dict(results=reports.with_calls)
        write_report(values, reports.json_file, as_json=reports.as_json)
        if reports.page is not None:
            write_page(report, config.target, reports.page)
        if not reports.as_json:
            show_placed(report)
    except PublicTarget as error:
        _fail(f"{error}: --allow-public")
    except ValueError as error:
        _fail(str(error))
    except OSError as error:
        typer.echo(f"trunkline: {error.strerror or error}", err=True)
        raise typer.Exit(_FAILED) from None
    if not report.ok or not report.rate_kept or report.interrupted:
        raise typer.Exit(_FAILED)
