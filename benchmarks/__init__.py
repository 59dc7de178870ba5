"""Benchmarks of the hot paths; run by hand, on a quiet machine."""
