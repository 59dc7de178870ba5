"""The dashboard, its JSON API, metrics, health and the webhook tap: all in a thread of their own, read-only."""
