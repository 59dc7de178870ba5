"""The errors of the SDP model."""

_REASON_LIMIT = 160


def one_line(text: str) -> str:
    """`text` made safe for a SIP reason phrase or a quoted Warning text: printable ASCII, no quotes, bounded length."""
    if len(text) > _REASON_LIMIT:
        text = text[: _REASON_LIMIT - 3] + "..."
    plain = "".join([char if " " <= char <= "~" else "?" for char in text])
    return plain.replace('"', "'").replace("\\", "/")


class SdpError(Exception):
    """A session description that cannot be understood, or cannot be used.

    `reason` names the fault in one printable line, fit for a SIP reason phrase or Warning text.
    """

    def __init__(self, reason: str) -> None:
        self.reason: str = one_line(reason)
        super().__init__(self.reason)


class NoCommonCodec(SdpError):
    """No audio stream is left with a codec that both sides may use. SIP answers this with 488 (RFC 3261 21.4.26)."""
