"""Single values of settings: SIP targets and networks, checked and turned into what the stack takes."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar

from proxy.b2bua.config import Network, Reach
from proxy.settings.sources import nearest
from proxy.sip.errors import SipError
from proxy.sip.uri import Uri, parse_uri, split_host_port

__all__ = [
    "NAMED_NETWORKS",
    "check_each",
    "expand_network",
    "host_or_address",
    "is_everywhere",
    "is_private",
    "name_targets",
    "refer_reach",
    "target_uri",
]

# Published ranges. Twilio: signaling of Elastic SIP Trunking in the regions us1, us2, ie1, de1, jp1, sg1, au1 and br1
# (https://www.twilio.com/docs/sip-trunking/ip-addresses). OpenAI: its SIP endpoints (Realtime SIP guide).
NAMED_NETWORKS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "twilio": (
            "54.172.60.0/30",
            "54.244.51.0/30",
            "54.171.127.192/30",
            "35.156.191.128/30",
            "54.65.63.192/30",
            "54.169.127.128/30",
            "54.252.254.64/30",
            "177.71.206.192/30",
        ),
        "openai": ("13.79.45.80/28", "23.98.140.64/28", "40.67.149.176/28", "40.83.204.240/28"),
    }
)

Item = TypeVar("Item")


def check_each(items: Iterable[Item], check: Callable[[Item], object]) -> None:
    """Call `check` with every item. Raises ValueError with all their complaints, one a line."""
    problems: list[str] = []
    for item in items:
        try:
            check(item)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))


def host_or_address(text: str) -> str:
    """An IP address without brackets, or a host name. Raises ValueError for anything that peers could not reach."""
    bare = text.removeprefix("[").removesuffix("]")
    try:
        unspecified = ipaddress.ip_address(bare).is_unspecified
    except ValueError:
        unspecified = False
        if not text.isascii() or not text.replace("-", "").replace(".", "").isalnum():
            raise ValueError(f"{text} is neither an IP address nor a host name (without scheme and port)") from None
    if unspecified:
        raise ValueError(f"{text} is no address that peers could reach")
    return bare


def is_everywhere(network: Network) -> bool:
    """Whether a range holds every address."""
    return network.first == 0 and network.last.bit_length() >= 32


def is_private(text: str) -> bool:
    """Whether an address is one that the Internet does not route; a name is not."""
    try:
        return ipaddress.ip_address(text).is_private
    except ValueError:
        return False


def name_targets(texts: Sequence[str]) -> dict[str, str]:
    """Targets by name from `name=uri` and URIs alone, which are named `main`, `target2`, `target3` by their position.

    Raises ValueError for a name that stands twice.
    """
    named: dict[str, str] = {}
    for number, text in enumerate(texts, 1):
        name, equals, uri = text.partition("=")
        name = name.strip()
        if not equals or not name.replace("-", "").replace("_", "").isalnum():
            name, uri = "main" if number == 1 else f"target{number}", text
        if name in named:
            raise ValueError(f"two targets are named {name}")
        named[name] = uri.strip()
    return named


def target_uri(name: str, text: str) -> Uri:
    """The URI of a target. Raises ValueError where no call could be sent to it."""
    try:
        uri = parse_uri(text)
    except SipError as error:
        raise ValueError(f"{name}: {text} is no SIP URI: {error.reason}") from None
    if uri.scheme not in ("sip", "sips"):
        raise ValueError(f"{name}: {text} is no SIP URI: it must start with sip: or sips:")
    transport = uri.param("transport")
    if transport is not None and transport.lower() not in ("udp", "tcp", "tls"):
        raise ValueError(f"{name}: transport {transport} is not spoken (allowed: udp, tcp, tls)")
    if uri.headers is not None:
        raise ValueError(f"{name}: {text} carries headers after `?`, which a Request-URI can't have")
    return uri


def expand_network(text: str) -> tuple[Network, ...]:
    """The ranges that an address, a range or the name of a list stands for. Raises ValueError."""
    named = NAMED_NETWORKS.get(text.lower())
    if named is not None:
        return tuple(network for item in named for network in expand_network(item))
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{text} is neither an address, nor a range such as 192.0.2.0/24, nor a named list"
            f"{nearest(text, list(NAMED_NETWORKS))} (lists: {', '.join(NAMED_NETWORKS)})"
        ) from None
    return (Network(network.version, int(network.network_address), int(network.broadcast_address), str(network)),)


def refer_reach(texts: Sequence[str], targets: Iterable[Uri], trunks: tuple[Network, ...]) -> Reach:
    """What `calls.refer_to` allows.

    `targets` stands for the hosts (and ports) of these URIs, `trunks` for these ranges, but for those that hold every
    address, `any` for everything; all else is a host, a pattern for hosts, `host:port`, or a range.

    Raises ValueError with all that is none of these, one a line.
    """
    hosts: list[tuple[str, int]] = []
    networks: list[Network] = []

    def take(text: str) -> None:
        if text == "targets":
            for uri in targets:
                hosts.extend((_bare(name), uri.port or 0) for name in (uri.host, uri.param("maddr")) if name)
        elif text == "trunks":
            networks.extend(network for network in trunks if not is_everywhere(network))
        elif "/" in text or text in NAMED_NETWORKS:
            networks.extend(expand_network(text))
        elif text != "any":
            try:
                _, port = split_host_port(text.replace("*", "x"))
            except SipError:
                raise ValueError(
                    f"{text} is neither `targets`, `trunks` or `any`, nor a host, a pattern for hosts or a range"
                ) from None
            hosts.append((_bare(text.rpartition(":")[0] if port is not None else text), port or 0))

    check_each(texts, take)
    return Reach("any" in texts, tuple(hosts), tuple(networks))


def _bare(host: str) -> str:
    return host.lower().rstrip(".").strip("[]")
