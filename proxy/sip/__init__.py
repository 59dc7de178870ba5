"""SIP messages: a lossless, lazy, ordered model and its parser (RFC 3261)."""
