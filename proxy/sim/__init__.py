"""Simulated neighbours for tests, demo and load: a Twilio trunk and the OpenAI SIP endpoint."""
