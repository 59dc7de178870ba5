"""The call store: every call with its messages in SQLite, written off the call path."""
