"""The command line as its users meet it: real processes, their output and exit codes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

ROOT = Path(__file__).resolve().parents[1]
TRUNKLINE = [sys.executable, "-m", "proxy"]
START_S = 20.0


def environment(**settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    return {**kept, "COLUMNS": "120", "NO_COLOR": "1", "TRUNKLINE_WORKERS": "1", **settings}


def trunkline(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [*TRUNKLINE, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(**settings), capture_output=True, text=True, timeout=30, check=False
    )


def free_port() -> int:
    """A port that is free for UDP and TCP; nobody else on this host asks for it before we do."""
    while True:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as tcp:
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as udp:
                try:
                    udp.bind(("127.0.0.1", port))
                except OSError:
                    continue
                return port


@contextmanager
def running(*arguments: str, **settings: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A process of `trunkline run` that listens, with its `started` line; it is ended at the end."""
    command = [*TRUNKLINE, "run", *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(**settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "started":
                yield process, event
                break
        else:
            pytest.fail(f"not started ({process.wait()}): {process.stderr.read() if process.stderr else ''}")
    finally:
        process.kill()
        process.communicate()


def port_of(event: dict[str, Any], at: int = 0) -> int:
    return int(event["listeners"][at].rpartition(":")[2])


def test_help_names_the_commands() -> None:
    result = trunkline("--help")
    assert result.returncode == 0
    for command in ("run", "check", "demo", "ping", "sim", "version"):
        assert f" {command} " in result.stdout


def test_command_line_loads_no_heavy_library() -> None:
    code = "import sys, proxy.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"aiohttp", "asyncio", "cryptography", "dns", "pydantic", "re2", "trustme", "uvloop", "yaml"}
    assert heavy.isdisjoint(result.stdout.split())


def test_version() -> None:
    result = trunkline("version")
    assert (result.returncode, result.stdout) == (0, "trunkline 0.1.0\n")


def test_run_without_settings_says_what_is_missing() -> None:
    result = trunkline("run")
    assert result.returncode == 2
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith("trunkline: TRUNKLINE_OPENAI_PROJECT_ID is not set: give the project id")
    assert second.startswith("trunkline: TRUNKLINE_PUBLIC_ADDRESS is not set: give the IP address")


@pytest.mark.parametrize("command", ["run", "check"])
def test_mistakes_in_settings_rules_and_certificates_are_told_together(tmp_path: Path, command: str) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\nname: mine\nrules:\n  - id: a\n    why: w\n    do: [{remvoe: Subject}]\n")
    key = tmp_path / "none.key"
    arguments = ("--target", "sip:127.0.0.1", "--listen", "udp:127.0.0.1:0", "--rules", str(rules))
    result = trunkline(command, *arguments, "--tls-certificate", str(key), "--tls-key", str(key))
    assert result.returncode == 2
    assert result.stdout == ""
    about_tls, *about_rules = result.stderr.splitlines()
    assert about_tls == f"trunkline: tls: {key} can't be read: no such file or directory"
    (line,) = [line for line in about_rules if line.startswith(f"trunkline: {rules}:6:") and "remvoe" in line]
    assert "remove" in line
    assert all(line.startswith(f"trunkline: {rules}:") for line in about_rules)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--listen", "udp:127.0.0.1:99999"), "--listen: listener 'udp:127.0.0.1:99999': '99999' is no port"),
        (("--events", "/nowhere/events.jsonl"), "events_file: /nowhere/events.jsonl: no such file or directory"),
        (("--config", "/nowhere/s.yaml"), "/nowhere/s.yaml: the settings file can't be read"),
        (("--allow", "me"), "--allow: me is neither an address"),
    ],
)
def test_run_refuses_what_can_not_be_used(arguments: tuple[str, ...], expected: str) -> None:
    result = trunkline("run", "--target", "sip:127.0.0.1", *_with_listener(arguments))
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"trunkline: {expected}")


def _with_listener(arguments: tuple[str, ...]) -> tuple[str, ...]:
    return arguments if "--listen" in arguments else ("--listen", "udp:127.0.0.1:0", *arguments)


def test_port_in_use_is_one_line_and_nothing_stays_open() -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        listeners = ("--listen", "tcp:127.0.0.1:0", "--listen", f"udp:127.0.0.1:{port}")
        result = trunkline("run", *listeners, "--target", "sip:127.0.0.1", "--log-level", "warning")
    assert result.returncode == 2
    assert result.stderr == f"trunkline: udp:127.0.0.1:{port}: address already in use\n"
    assert result.stdout == ""


def test_loopback_proxy_answers_pings_and_ends_on_sigterm() -> None:
    """The command line that any SIP tester can be pointed at."""
    port = free_port()
    listeners = ("--listen", f"udp:127.0.0.1:{port}", "--listen", f"tcp:127.0.0.1:{port}")
    rest = ("--target", "sip:127.0.0.1:5080", "--allow", "127.0.0.0/8", "--rules", "rules/twilio-openai.yaml")
    with running(*listeners, *rest) as (process, event):
        assert event["listeners"] == [f"udp:127.0.0.1:{port}", f"tcp:127.0.0.1:{port}"]
        for uri in (f"sip:127.0.0.1:{port}", f"sip:127.0.0.1:{port};transport=tcp"):
            result = trunkline("ping", uri)
            assert result.returncode == 0, result.stderr
            assert result.stdout.startswith("200 OK from Trunkline/0.1.0 in ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    assert trunkline("ping", "--timeout", "0.5", f"sip:127.0.0.1:{port}").returncode == 1


def test_workers_share_a_port_that_was_chosen_for_them() -> None:
    listeners = ("--listen", "udp:127.0.0.1:0", "--listen", "tcp:127.0.0.1:0")
    rest = ("--target", "sip:127.0.0.1:5080", "--allow", "127.0.0.0/8", "--no-store")
    with running(*listeners, *rest, TRUNKLINE_WORKERS="2") as (process, event):
        assert process.stdout is not None
        others = (json.loads(line) for line in process.stdout)
        other = next(line for line in others if line["event"] == "started")
        assert other["listeners"] == event["listeners"]
        assert other["pid"] != event["pid"]
        assert port_of(event) > 0
        for at, transport in enumerate(("udp", "tcp")):
            uri = f"sip:127.0.0.1:{port_of(event, at)};transport={transport}"
            assert trunkline("ping", uri).returncode == 0
        again = trunkline("run", "--listen", event["listeners"][0], *rest, TRUNKLINE_WORKERS="2")
        assert (again.returncode, again.stderr) == (2, f"trunkline: {event['listeners'][0]}: address already in use\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


def test_log_level_warning_says_nothing_of_an_ordinary_start() -> None:
    port = free_port()
    command = [*TRUNKLINE, "run", "--listen", f"tcp:127.0.0.1:{port}", "--target", "sip:127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--log-level", "warning"],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert _listens(port)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out, err) == (0, "", "")


def _listens(port: int) -> bool:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.02)
    return False


def test_ping_over_tls_needs_a_certificate_that_it_trusts(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    certificate, key, ca_file = (tmp_path / name for name in ("c.pem", "k.pem", "ca.pem"))
    certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca_file)
    tls = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    own = ("--listen", "tls:127.0.0.1:0", "--target", "sip:127.0.0.1", "--allow", "127.0.0.1")
    with running(*own, *tls) as (_, event):
        uri = f"sip:localhost:{port_of(event)};transport=tls"
        assert trunkline("ping", "--tls-ca", str(ca_file), uri).returncode == 0
        refused = trunkline("ping", uri)
    assert refused.returncode == 1
    assert "its certificate is not accepted" in refused.stderr


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://example.com", "a SIP URI starts with sip: or sips:"),
        ("sip:127.0.0.1;transport=sctp", "transport sctp is not spoken"),
        ("sip:", "Malformed host"),
        ("sip:does-not-exist.invalid", ""),
    ],
)
def test_ping_refuses_what_it_can_not_reach(uri: str, expected: str) -> None:
    result = trunkline("ping", uri)
    assert result.returncode == 1
    assert result.stderr.startswith(f"trunkline: {uri}: {expected}")
    assert len(result.stderr.splitlines()) == 1


def test_ping_waits_no_longer_than_it_should() -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as silent:
        silent.bind(("127.0.0.1", 0))
        result = trunkline("ping", "--timeout", "0.7", f"sip:127.0.0.1:{silent.getsockname()[1]}")
        silent.settimeout(0)
        requests = [silent.recv(2000), silent.recv(2000)]
    assert (result.returncode, result.stderr.rpartition(": ")[2]) == (1, "no answer in 0.7 s\n")
    assert requests[0] == requests[1]
    assert requests[0].startswith(b"OPTIONS sip:127.0.0.1")


def test_ping_of_what_is_no_sip_fails(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        command = [*TRUNKLINE, "ping", f"sip:127.0.0.1:{server.getsockname()[1]};transport=tcp"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)
        server.settimeout(20)
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"220 mail.example.com ready\r\nfoo: bar\r\n\r\n")
            _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "the answer can't be understood" in err


def test_check_shows_what_run_would_use(tmp_path: Path) -> None:
    settings = {"TRUNKLINE_OPENAI_PROJECT_ID": "proj_abc", "TRUNKLINE_PUBLIC_ADDRESS": "sip.example.com"}
    result = trunkline("check", "--events", str(tmp_path / "e.jsonl"), **settings)
    assert result.returncode == 0, result.stderr
    words = " ".join(result.stdout.split())
    for expected in (
        "listen udp:0.0.0.0:5060, tcp:0.0.0.0:5060",
        "public address sip.example.com",
        "targets openai: sip:proj_abc@sip.api.openai.com;transport=tls",
        "allow twilio (8 ranges)",
        "1 twilio-openai openai 2 twilio-openai openai 3 minimal openai",
        "twilio-openai (default)",
    ):
        assert expected in words
    assert not (tmp_path / "e.jsonl").exists()


def test_check_of_rule_files_needs_no_settings(tmp_path: Path) -> None:
    result = trunkline("check", "rules/minimal.yaml", "rules/twilio-openai.yaml")
    assert result.returncode == 0
    assert "rules/minimal.yaml" in result.stdout
    bad, worse = tmp_path / "bad.yaml", tmp_path / "worse.yaml"
    bad.write_text("version: 1\nname: bad\nrules:\n  - {id: a, why: w, do: [{remove: Via}]}\n")
    worse.write_text("version: 2\nrules: 3\n")
    result = trunkline("check", str(bad), str(worse), "rules/minimal.yaml")
    assert result.returncode == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"trunkline: {bad}:4:")
    assert "Via" in lines[0]
    assert len([line for line in lines if line.startswith(f"trunkline: {worse}:")]) >= 2


def test_unknown_flag_and_command_are_refused() -> None:
    assert trunkline("run", "--listn", "udp:127.0.0.1:0").returncode == 2
    assert trunkline("walk").returncode == 2


def test_health_check_of_this_host_is_answered_though_it_may_not_call() -> None:
    """As in a container with the default `allow`; OPTIONS of another address and an INVITE of this one get silence."""
    with running("--listen", "udp:127.0.0.1:0", "--target", "sip:127.0.0.1") as (_, event):
        port = port_of(event)
        assert trunkline("ping", f"sip:127.0.0.1:{port}").returncode == 0
        for address, method in (("127.0.0.2", "OPTIONS"), ("127.0.0.1", "INVITE")):
            with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as stranger:
                stranger.bind((address, 0))
                here = f"{address}:{stranger.getsockname()[1]}"
                lines = (
                    f"{method} sip:127.0.0.1 SIP/2.0",
                    f"Via: SIP/2.0/UDP {here};branch=z9hG4bK{method}",
                    "Max-Forwards: 70",
                    f"From: <sip:a@{here}>;tag=1",
                    "To: <sip:127.0.0.1>",
                    f"Call-ID: {method}",
                    f"CSeq: 1 {method}",
                    f"Contact: <sip:{here}>",
                    "Content-Length: 0",
                )
                stranger.sendto("".join(f"{line}\r\n" for line in (*lines, "")).encode(), ("127.0.0.1", port))
                stranger.settimeout(0.4)
                with pytest.raises(TimeoutError):
                    stranger.recv(2000)
