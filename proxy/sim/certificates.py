"""A certificate of our own making, with the CA that proves it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Certificate", "NoCertificate", "make_certificate"]


class NoCertificate(ValueError):
    """A certificate of our own can't be made, and what to do."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files: the `certificate` (chain), its private `key`, and the `ca_file` that peers must trust."""

    certificate: Path
    key: Path
    ca_file: Path


def make_certificate(directory: Path, names: Iterable[str]) -> Certificate:
    """Make a CA and a certificate for these names and addresses, and write ca.pem, server.pem and server.key.

    The key is readable by its owner alone. Raises OSError when the directory can't be written, NoCertificate without
    the packages of `trunkline[sim]`.
    """
    try:
        import trustme
    except ImportError as error:
        text = f"a certificate of its own needs more packages: pip install 'trunkline[sim]' ({error})"
        raise NoCertificate(text) from None

    authority = trustme.CA(organization_name="Trunkline simulator")
    issued = authority.issue_cert(*names)
    made = Certificate(directory / "server.pem", directory / "server.key", directory / "ca.pem")
    directory.mkdir(parents=True, exist_ok=True)
    made.key.unlink(missing_ok=True)
    made.key.touch(mode=0o600)
    made.key.write_bytes(issued.private_key_pem.bytes())
    made.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(made.ca_file)
    return made
