"""SIP transactions as transition tables (RFC 3261 section 17, RFC 6026)."""
