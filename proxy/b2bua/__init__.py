"""The back-to-back user agent: calls, their legs, mapping, retries and admission."""
