"""SDP sessions (RFC 8866) and the offer/answer model (RFC 3264), lossless."""

from .address import is_private_address
from .codecs import Codec
from .crypto import Crypto
from .editor import WEBRTC_ATTRIBUTES, Editor, Record
from .errors import NoCommonCodec, SdpError
from .offer_answer import check_answer, map_answer
from .session import Media, Session

__all__ = [
    "WEBRTC_ATTRIBUTES",
    "Codec",
    "Crypto",
    "Editor",
    "Media",
    "NoCommonCodec",
    "Record",
    "SdpError",
    "Session",
    "check_answer",
    "is_private_address",
    "map_answer",
]
