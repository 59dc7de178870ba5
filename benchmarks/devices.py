"""The devices that `benchmarks.run` compares: how each one is started between the caller and the callee."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.copies import make_copy

__all__ = ["DEVICES", "HOST", "Device", "Ports", "free_ports"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
HOST = "127.0.0.1"
_PORT_BASES = range(15060, 19060, 100)


@dataclass(frozen=True, slots=True)
class Ports:
    """Who listens where: the device, the caller, the callee, TLS in front of the callee, the device's web pages."""

    device: int
    caller: int
    callee: int
    tls: int
    admin: int


def free_ports() -> Ports:
    """Ports that nobody has, so that two runs on one machine don't meet. Raises OSError when all are taken."""
    for base in _PORT_BASES:
        ports = Ports(base, base + 10, base + 20, base + 1, base + 2)
        try:
            for port in (ports.device, ports.caller, ports.callee, ports.tls, ports.admin):
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    with socket.socket(socket.AF_INET, kind) as probe:
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
                        probe.bind((HOST, port))
        except OSError:
            continue
        return ports
    raise OSError(f"no free ports on {HOST} from {_PORT_BASES.start} on")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a device runs.

    Attributes:
        ports: see `Ports`.
        folder: a new folder for its files.
        copies: where copies of the tree lie.
        ca_file: the authority of the TLS target.
    """

    ports: Ports
    folder: Path
    copies: Path
    ca_file: Path


@dataclass(frozen=True)
class Device:
    """One device under load.

    Attributes:
        name: what the tables call it.
        what: one line about it.
        needs: programs or files that must be there.
        most: a rate in calls per second above which it is not tried, 0 for none.
        tls: whether it reaches the callee by TLS.
    """

    name: str
    what: str
    needs: tuple[str, ...] = ()
    most: int = 0
    tls: bool = False

    @property
    def native(self) -> bool:
        """Whether its code is no Python that a profiler could read."""
        return True

    @property
    def missing(self) -> list[str]:
        """What it needs and is not installed."""
        needs = (*self.needs, "stunnel") if self.tls else self.needs
        return [need for need in needs if shutil.which(need) is None and not Path(need).exists()]

    def command(self, place: Place) -> list[str]:
        """Its program and arguments."""
        raise NotImplementedError

    def environment(self, place: Place) -> Mapping[str, str]:
        """What is added to our environment."""
        return {}

    def folder(self, place: Place) -> Path:
        """Where it is started."""
        return place.folder

    def start(self, place: Place, log: Path) -> subprocess.Popen[bytes]:
        """Start it in a session of its own; its output goes to a file."""
        with log.open("wb") as out:
            return subprocess.Popen(
                self.command(place),
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.folder(place),
                env={**os.environ, **self.environment(place)},
                start_new_session=True,
            )


@dataclass(frozen=True)
class Trunkline(Device):
    """Trunkline from a copy of this tree.

    Attributes:
        compiled: with the compiled core.
        store: with the call store. pages: with dashboard and metrics. events: with every event written to a file.
        workers: see `--workers`.
    """

    compiled: bool = True
    store: bool = False
    pages: bool = False
    events: bool = False
    workers: int = 1

    @property
    def native(self) -> bool:
        """With the compiled core."""
        return self.compiled

    def folder(self, place: Place) -> Path:
        """The copy."""
        return make_copy(place.copies, compiled=self.compiled)

    def command(self, place: Place) -> list[str]:
        """`trunkline run` with default rules."""
        ports = place.ports
        target = f"sip:localhost:{ports.tls};transport=tls" if self.tls else f"sip:{HOST}:{ports.callee}"
        command = [sys.executable, "-m", "proxy", "run", "--listen", f"udp:{HOST}:{ports.device}"]
        command += ["--target", target, "--allow", "127.0.0.0/8", "--workers", str(self.workers)]
        if self.tls:
            command += ["--tls-ca", str(place.ca_file)]
        if self.events:
            command += ["--events", str(place.folder / "events.jsonl")]
        if self.pages:
            command += ["--admin", f"{HOST}:{ports.admin}"]
        return command

    def environment(self, place: Place) -> Mapping[str, str]:
        """All calls come from one address: the default limit of a source would be what is measured."""
        return {
            "TRUNKLINE_STORE__ENABLED": "true" if self.store else "false",
            "TRUNKLINE_STORE__PATH": str(place.folder / "calls.db"),
            "TRUNKLINE_LIMITS__SOURCE_INVITES_PER_S": "0",
            "TRUNKLINE_LIMITS__INVITES_PER_S": "0",
            "TRUNKLINE_LIMITS__MAX_CALLS": "100000",
        }


@dataclass(frozen=True)
class Kamailio(Device):
    """Kamailio with `peers/kamailio.cfg`."""

    topoh: bool = False

    def command(self, place: Place) -> list[str]:
        """One SIP worker in the foreground."""
        ports = place.ports
        defines = [f"LISTEN=udp:{HOST}:{ports.device}", f'TARGET="sip:{HOST}:{ports.callee}"']
        if self.topoh:
            defines.append("WITH_TOPOH")
        arguments = [word for define in defines for word in ("-A", define)]
        command = ["kamailio", "-DD", "-E", "-m", "512", "-M", "32", "-Y", str(place.folder)]
        return [*command, "-f", str(HERE / "peers" / "kamailio.cfg"), *arguments]


@dataclass(frozen=True)
class Sippy(Device):
    """Sippy's simple B2BUA."""

    def command(self, place: Place) -> list[str]:
        """In the foreground."""
        ports = place.ports
        arguments = ["-f", "-l", HOST, "-p", str(ports.device), "-n", f"{HOST}:{ports.callee}"]
        return [self.needs[0], "-m", "sippy.b2bua_simple", *arguments]

    def environment(self, place: Place) -> Mapping[str, str]:
        """Its log is left out."""
        return {"SIPLOG_BEND": "none", "SIPLOG_LVL": "CRIT"}


def _devices() -> dict[str, Device]:
    compiled = Trunkline("trunkline", "compiled core, change records made, call store off")
    store = Trunkline("trunkline-store", "the same with the call store", store=True)
    pure = Trunkline("trunkline-pure", "pure Python, call store off", compiled=False)
    sippy = os.environ.get("SIPPY_PYTHON", str(ROOT / ".venv-bench" / "bin" / "python"))
    found: list[Device] = [
        compiled,
        store,
        pure,
        replace(pure, name="trunkline-pure-store", what="pure Python, call store on", store=True),
        replace(compiled, name="trunkline-tls", what="compiled core, TLS to the target", tls=True),
        replace(store, name="trunkline-tls-store", what="the same with the call store", tls=True),
        replace(store, name="trunkline-all", what="TLS to the target, call store, dashboard", tls=True, pages=True),
        replace(compiled, name="trunkline-events", what="every message and change written to a file", events=True),
        *(
            replace(compiled, name=f"trunkline-{count}-workers", what=f"--workers {count}", workers=count)
            for count in (2, 3, 4)
        ),
        Kamailio("kamailio-topoh", "Kamailio, a proxy in C: header and codec rules, topoh", ("kamailio",), topoh=True),
        Kamailio("kamailio", "the same without hiding topology", ("kamailio",)),
        Sippy("sippy", "Sippy's b2bua_simple, a B2BUA in Python, without rules", (sippy,), most=160),
    ]
    return {device.name: device for device in found}


DEVICES: Mapping[str, Device] = _devices()
