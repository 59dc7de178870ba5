"""`sim openai` and `sim twilio`, as a user runs them."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from proxy.sim.commands import add_sim_commands
from proxy.sim.shape import PROBLEMS

COMMAND = [
    sys.executable,
    "-c",
    "import typer; from proxy.sim.commands import add_sim_commands as add; app = typer.Typer(); add(app)\n"
    "@app.command()\ndef other(): ...\napp()",
]


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    add_sim_commands(made)

    @made.command()
    def other() -> None:
        """So that `sim` stays a sub-command."""

    return made


@pytest.fixture
def target(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A running `sim openai` with its addresses by transport."""
    listeners = ["--listen", "udp:127.0.0.1:0", "--listen", "tls:127.0.0.1:0"]
    flags = ["--certificate-dir", str(tmp_path), "--answer-after", "2", "--bad-request-every", "3", "--json"]
    command = [*COMMAND, "sim", "openai", *listeners, *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        addresses: dict[str, str] = {}
        for line in process.stderr:
            if line == "ready\n":
                break
            if line.startswith("listening on "):
                transport, _, address = line.removeprefix("listening on ").strip().partition(":")
                addresses[transport] = address
        yield process, addresses
        process.kill()


def test_both_commands(app: typer.Typer, target: tuple[subprocess.Popen[str], dict[str, str]], tmp_path: Path) -> None:
    process, addresses = target
    run = CliRunner()
    port = addresses["tls"].rpartition(":")[2]
    file = tmp_path / "report.json"
    flags = ["-n", "2", "--hold", "1", "--ca-file", str(tmp_path / "ca.pem"), "--report", str(file), "--report-calls"]
    good = run.invoke(app, ["sim", "twilio", "--to", f"sip:proj_x@localhost:{port};transport=tls", *flags])
    assert good.exit_code == 0
    assert "outcomes: 2 200 OK" in good.stdout
    assert "Every call was answered" in good.stdout
    assert [call["outcome"] for call in json.loads(file.read_bytes())["results"]] == ["200 OK", "200 OK"]
    page = tmp_path / "report.html"
    flags = ["--media", "rtp", "--json", "--html", str(page)]
    bad = run.invoke(app, ["sim", "twilio", "--to", f"sip:{addresses['udp']}", *flags])
    assert bad.exit_code == 1
    assert "1 of 1 calls failed" in page.read_text()
    assert json.loads(bad.stdout)["outcomes"] == {"400 Bad Request": 1}
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert json.loads(stdout)["outcomes"] == {"200 OK": 2, "400 Bad Request": 1}


def test_ctrl_c_ends_the_calls_and_reports(target: tuple[subprocess.Popen[str], dict[str, str]]) -> None:
    _, addresses = target
    flags = ["--to", f"sip:{addresses['udp']}", "-n", "100000", "-r", "20", "--hold", "3600000", "--json"]
    command = [*COMMAND, "sim", "twilio", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as placing:
        assert placing.stderr is not None
        assert " of 100000 placed" in placing.stderr.readline()
        placing.send_signal(signal.SIGINT)
        stdout, stderr = placing.communicate(timeout=30)
    report = json.loads(stdout)
    assert (placing.returncode, report["interrupted"], "stopping" in stderr) == (1, True, True)
    assert report["answered"] + report["cancelled"] + report["failed"] == report["calls"] < 100_000
    assert report["answered"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["openai"], 2, "--answer-after MS"),
        (["openai", "--answer-after", "1", "--listen", "sctp:1.2.3.4:5"], 2, "udp|tcp|tls:address:port"),
        (["openai", "--answer-after", "1", "--webhook-secret", "x"], 2, "whsec_"),
        (["openai", "--http", "8080", "--listen", "udp:127.0.0.1:0"], 2, "address:port"),
        (["openai", "--silent", "2", "--answer-after", "1"], 2, "--silent"),
        (["openai", "--answer-after", "1", "--listen", "udp:192.0.2.1:0"], 2, "udp:192.0.2.1:0: "),
        (["openai", "--answer-after", "1", "--certificate", "/none", "--key", "/none"], 2, "/none: No such file"),
        (["twilio", "--to", "sip:127.0.0.1;transport=tls", "--ca-file", "/none"], 2, "CA file /none: No such file"),
        (["twilio", "--to", "sip:10.0.0.1"], 2, "--allow-public"),
        (["twilio", "--to", "127.0.0.1:5060"], 2, "no URI such as sip:127.0.0.1:5060"),
        (["twilio", "--to", "sip:127.0.0.1", "--html", "/none/report.html"], 2, "can't be written: no such directory"),
        (["twilio", "--to", "tel:+15550100001"], 2, "not a sip: URI"),
        (["twilio", "--to", "sip:127.0.0.1", "--problem", "none"], 2, "duplicate-content-type"),
        (["twilio", "--to", "sip:127.0.0.1:9", "-t", "tcp"], 1, "no connection to tcp:127.0.0.1:9"),
    ],
)
def test_mistakes_are_told_in_one_line(app: typer.Typer, arguments: list[str], code: int, text: str) -> None:
    result = CliRunner().invoke(app, ["sim", *arguments])
    assert (result.exit_code, text in result.stderr) == (code, True), result.stderr
    assert "Traceback" not in result.stderr


def test_kinds_of_problems_are_listed(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["sim", "twilio", "--to", "sip:127.0.0.1", "--problem", "list"])
    assert result.stdout.split() == list(PROBLEMS)


def test_every_fault_has_its_flag(app: typer.Typer) -> None:
    help_text = CliRunner().invoke(app, ["sim", "openai", "--help"]).stdout
    for fault in ("silent", "reset", "late-webhook", "accept-failure", "answer-cancelled", "unavailable", "strict"):
        assert f"--{fault}" in help_text


def test_nothing_heavy_is_imported_for_the_help() -> None:
    code = "import sys, proxy.sim.commands; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"aiohttp", "asyncio", "uvloop", "trustme", "cryptography", "orjson"} & set(result.stdout.split())
