"""What the operations of the Editor do to a single line: it stays, becomes another, or goes (None)."""

from collections.abc import Callable, Iterable, Mapping

from .crypto import Crypto
from .session import attribute_of, is_rtpmap, payload_of


class NamePatterns:
    """Attribute names to look for: "candidate", or with `*` for any run of characters, "ice-*"."""

    __slots__ = ("_exact", "_globs", "_prefixes")

    def __init__(self, names: Iterable[str]) -> None:
        exact: list[str] = []
        prefixes: list[str] = []
        self._globs: list[list[str]] = []
        for name in names:
            pieces = name.split("*")
            if len(pieces) == 1:
                exact.append(name)
            elif len(pieces) == 2 and not pieces[1]:
                prefixes.append(pieces[0])
            else:
                self._globs.append(pieces)
        self._exact: frozenset[str] = frozenset(exact)
        self._prefixes: tuple[str, ...] = tuple(prefixes)

    def match(self, name: str) -> bool:
        """Tell whether `name` is one of the names, or fits one of the patterns."""
        return (
            name in self._exact
            or name.startswith(self._prefixes)
            or (bool(self._globs) and any(_fits(pieces, name) for pieces in self._globs))
        )


def _fits(pieces: list[str], name: str) -> bool:
    first, last = pieces[0], pieces[-1]
    position, end = len(first), len(name) - len(last)
    if position > end or not (name.startswith(first) and name.endswith(last)):
        return False
    for piece in pieces[1:-1]:
        found = name.find(piece, position, end)
        if found < 0:
            return False
        position = found + len(piece)
    return True


class Undangle:
    """What `drop_dangling` does to each line of one section."""

    __slots__ = ("_formats", "_mapped", "_seen")

    def __init__(self, formats: set[str], mapped: set[str]) -> None:
        self._formats = formats
        self._mapped = mapped
        self._seen: set[tuple[str, str]] = set()

    def __call__(self, line: str) -> str | None:
        found = payload_of(line)
        if found is None:
            return line
        name, payload = found
        if name == "rtcp-fb":
            return line if payload == "*" or payload in self._formats else None
        if payload not in self._formats or found in self._seen:
            return None
        if name == "rtpmap" and (payload not in self._mapped or not is_rtpmap(line)):
            return None
        self._seen.add(found)
        return line


class OneValue:
    """Leaves one attribute of each name in `values`, with its number; none where that is None."""

    __slots__ = ("_seen", "_values")

    def __init__(self, values: Mapping[str, int | None]) -> None:
        self._values = values
        self._seen: set[str] = set()

    def __call__(self, line: str) -> str | None:
        if not line.startswith("a="):
            return line
        name = attribute_of(line)[0]
        if name not in self._values:
            return line
        number = self._values[name]
        if name in self._seen or number is None:
            return None
        self._seen.add(name)
        changed = f"a={name}:{number}"
        return line if line.rstrip() == changed else changed


class FirstOf:
    """Puts `line` in place of the first attribute that `is_one` names, and removes the others."""

    __slots__ = ("_is_one", "_line", "_seen")

    def __init__(self, line: str, is_one: Callable[[str], bool]) -> None:
        self._line = line
        self._is_one = is_one
        self._seen = False

    def __call__(self, line: str) -> str | None:
        if not line.startswith("a=") or not self._is_one(line):
            return line
        if self._seen:
            return None
        self._seen = True
        return line if line.rstrip() == self._line else self._line


class PlainKeys:
    """What `keep_crypto` does to each line: `plain` are the suites that are offered without MKI."""

    __slots__ = ("_plain", "_wanted")

    def __init__(self, wanted: set[str], plain: set[str]) -> None:
        self._wanted = wanted
        self._plain = plain

    def __call__(self, line: str) -> str | None:
        if not line.startswith("a=crypto:"):
            return line
        crypto = Crypto.parse(line[9:])
        if crypto is None or crypto.suite.upper() not in self._wanted:
            return None
        if crypto.has_mki and crypto.suite.upper() in self._plain:
            return None
        return line.replace(crypto.key_params, crypto.plain_key_params, 1)


def without_mids(line: str, mids: set[str]) -> str | None:
    """An a=group line (RFC 5888) without `mids`; None when no other is left. Every other line as it is."""
    if not line.startswith("a=group:"):
        return line
    fields = line[8:].split()
    left = [field for field in fields[1:] if field not in mids]
    if len(left) == len(fields) - 1:
        return line
    return " ".join(["a=group:" + fields[0], *left]) if left else None


def speaks_of(line: str, payloads: set[str]) -> bool:
    """Tell whether `line` is an rtpmap, fmtp or rtcp-fb of one of `payloads`."""
    found = payload_of(line)
    return found is not None and found[1] in payloads


def is_attribute(line: str, patterns: NamePatterns) -> bool:
    """Tell whether `line` is an attribute whose name is one of `patterns`."""
    return line.startswith("a=") and patterns.match(attribute_of(line)[0])
