"""SIP dialogs (RFC 3261 section 12) and session timers (RFC 4028)."""
