"""Events for other systems: HEP3 and OpenTelemetry."""
