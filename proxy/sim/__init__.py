"""The two neighbours, simulated with their real defects: for tests, the demonstration and load."""
