"""a=crypto: SDES keys for SRTP (RFC 4568)."""

from .codecs import parse_int


class Crypto:
    """One a=crypto attribute (RFC 4568 9.1). Immutable by convention; its repr never shows a key.

    `tag` and `suite` as offered, `key_params` the text of the key parameters ("inline:..."), `session_params` what
    follows them ("" if nothing).
    """

    __slots__ = ("key_params", "session_params", "suite", "tag")

    def __init__(self, tag: int, suite: str, key_params: str, session_params: str) -> None:
        self.tag: int = tag
        self.suite: str = suite
        self.key_params: str = key_params
        self.session_params: str = session_params

    @classmethod
    def parse(cls, value: str) -> "Crypto | None":
        """Read the text after `a=crypto:`; None when it is malformed or has no inline key."""
        fields = value.split(None, 3)
        if len(fields) < 3:
            return None
        tag = parse_int(fields[0], 999_999_999)
        method, _, key = fields[2].partition(":")
        if tag < 0 or method.lower() != "inline" or not key or key[0] in "|;":
            return None
        return cls(tag, fields[1], fields[2], fields[3].rstrip() if len(fields) > 3 else "")

    def __repr__(self) -> str:
        return f"<Crypto {self.tag} {self.suite}>"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Crypto)
            and self.tag == other.tag
            and self.suite == other.suite
            and self.key_params == other.key_params
            and self.session_params == other.session_params
        )

    def __hash__(self) -> int:
        return hash((self.tag, self.suite, self.key_params))

    @property
    def has_mki(self) -> bool:
        """True when SRTP packets made with this key carry a Master Key Identifier (`|<value>:<length>`)."""
        return any(":" in part for key in self.key_params.split(";") for part in key.split("|")[1:])

    @property
    def plain_key_params(self) -> str:
        """The first inline key alone: no lifetime, no MKI, no further keys (those can be told apart by MKI only)."""
        return self.key_params.partition(";")[0].partition("|")[0]
