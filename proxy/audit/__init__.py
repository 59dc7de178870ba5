"""The record of every call, message and change."""
