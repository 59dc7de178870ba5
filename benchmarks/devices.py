"""The devices that `benchmarks.run` compares: how each one is started between the caller and the callee."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["CALLEE_PORT", "CALLER_PORT", "DEVICES", "DEVICE_PORT", "HOST", "Device"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PURE = Path(os.environ.get("BENCH_PURE", str(ROOT / "bench-out" / "pure")))
"""A copy of the tree without compiled modules, for comparison where this one has them."""
HOST = "127.0.0.1"
DEVICE_PORT = 15060
RUN_DIR = tempfile.gettempdir()
CALLER_PORT = 15070
CALLEE_PORT = 15080


@dataclass(frozen=True)
class Device:
    """One device under load.

    Attributes:
        name: what the tables call it.
        what: one line about it.
        command: its program and arguments.
        needs: programs or files that must be there.
        environment: added to ours.
        transport: what it speaks to the callee by: `u1` or `t1` in SIPp's terms.
        folder: where it is started.
        most: a rate in calls per second above which it is not tried, 0 for none.
    """

    name: str
    what: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    transport: str = "u1"
    most: int = 0
    folder: Path = ROOT

    @property
    def present(self) -> bool:
        """Whether all that it needs is installed."""
        return all(shutil.which(need) is not None or Path(need).exists() for need in self.needs)

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        """Start it in a session of its own; its output goes to a file."""
        with log.open("wb") as out:
            return subprocess.Popen(
                self.command,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )


def _trunkline(name: str, what: str, *more: str, pure: bool = False, store: bool = False) -> Device:
    """Trunkline from this tree; `pure` without its compiled core, should there be one; `store` with its call store."""
    settings = {
        "TRUNKLINE_STORE__ENABLED": "true" if store else "false",
        # All calls come from one address; the default of 500 a second would be what is measured.
        "TRUNKLINE_LIMITS__SOURCE_INVITES_PER_S": "0",
        "TRUNKLINE_LIMITS__INVITES_PER_S": "0",
    }
    if store:
        settings["TRUNKLINE_STORE__PATH"] = f"{RUN_DIR}/trunkline-bench-{os.getpid()}.db"
    return Device(
        name,
        what,
        (
            sys.executable,
            "-m",
            "proxy",
            "run",
            "--listen",
            f"udp:{HOST}:{DEVICE_PORT}",
            "--target",
            f"sip:{HOST}:{CALLEE_PORT}",
            "--allow",
            "127.0.0.0/8",
            "--rules",
            str(ROOT / "rules" / "twilio-openai.yaml"),
            *more,
        ),
        environment=settings,
        needs=(str(PURE),) if pure else (),
        folder=PURE if pure else ROOT,
    )


def _kamailio(name: str, what: str, *defines: str) -> Device:
    arguments = [word for define in defines for word in ("-A", define)]
    config = str(HERE / "peers" / "kamailio.cfg")
    return Device(
        name,
        what,
        ("kamailio", "-DD", "-E", "-m", "512", "-M", "32", "-Y", RUN_DIR, "-f", config, *arguments),
        needs=("kamailio",),
    )


def _sippy() -> Device:
    python = os.environ.get("SIPPY_PYTHON", str(ROOT / ".venv-bench" / "bin" / "python"))
    arguments = ("-f", "-l", HOST, "-p", str(DEVICE_PORT), "-n", f"{HOST}:{CALLEE_PORT}")
    return Device(
        "sippy",
        "Sippy B2BUA (b2bua_simple), a B2BUA in Python; no rules",
        (python, "-m", "sippy.b2bua_simple", *arguments),
        needs=(python,),
        environment={"SIPLOG_BEND": "none", "SIPLOG_LVL": "CRIT"},
        most=100,
    )


DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        _trunkline("trunkline", "default rules, change records made, no call store"),
        _trunkline("trunkline-store", "the same with the call store", store=True),
        _trunkline("trunkline-pure", "the same without the compiled core", pure=True),
        _trunkline(
            "trunkline-events",
            "every message and change written to a file",
            "--events",
            f"{RUN_DIR}/trunkline-bench.jsonl",
        ),
        _kamailio("kamailio-topoh", "stateful proxy, header and codec rules, topology hidden by topoh", "WITH_TOPOH"),
        _kamailio("kamailio", "the same without hiding topology"),
        _sippy(),
    )
}
