"""Trunkline: a SIP back-to-back user agent between Twilio SIP trunks and the OpenAI Realtime SIP endpoint."""

__version__ = "0.1.0"
