"""OpenTelemetry traces: a trace per call, with a span for the call, for each leg and for each attempt."""

from __future__ import annotations

import time
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context

from proxy import __version__
from proxy.audit.plain import plain
from proxy.audit.records import Event
from proxy.audit.redact import Redaction, Redactor
from proxy.export.queued import QueuedSink

__all__ = ["TraceSink", "otlp_provider"]

_KINDS: Final = frozenset(
    "call-start attempt-start attempt-end hop-failed retry call-answered call-end webhook webhook-answered".split()
)
_MAX_CALLS: Final = 20_000
_NAMES: Final = {"call_id": "sip.call_id", "uri": "sip.request_uri", "from": "sip.from", "to": "sip.to"}


def otlp_provider(endpoint: str, service_name: str) -> TracerProvider:
    """A provider that sends spans by OTLP over HTTP, in batches, from a thread of its own."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    provider = TracerProvider(
        resource=Resource.create({"service.name": service_name, "service.version": __version__}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=5)))
    return provider


class _Call:
    __slots__ = ("attempts", "call", "context", "legs")

    def __init__(self, call: Span, context: Context) -> None:
        self.call = call
        self.context = context
        self.legs: dict[str, Span] = {}
        self.attempts: dict[int, Span] = {}


class TraceSink(QueuedSink):
    """Makes spans from events, in a thread.

    Args:
        provider: where spans go; shut down by `close`.
        redaction: what is masked in attributes.
        wall_offset: seconds to add to an event's time for the Unix time; None follows the system's clock.
    """

    __slots__ = ("_calls", "_offset", "_provider", "_redactor", "_tracer")

    def __init__(self, provider: TracerProvider, redaction: Redaction, *, wall_offset: float | None = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("trunkline", __version__)
        self._redactor = Redactor(redaction)
        self._offset = wall_offset
        self._calls: dict[str, _Call] = {}
        super().__init__("traces", "otel-failed", _KINDS, self._take, provider.shutdown)

    def _take(self, event: Event) -> None:
        if not event.call:
            return
        offset = time.time() - time.monotonic() if self._offset is None else self._offset
        at = int((event.time + offset) * 1_000_000_000)
        if event.kind == "call-start":
            self._begin(event, at)
            return
        call = self._calls.get(event.call)
        if call is None:
            return
        match event.kind:
            case "attempt-start":
                span = call.attempts[event.attempt] = self._tracer.start_span(
                    f"attempt {event.attempt}", call.context, SpanKind.CLIENT, start_time=at
                )
                self._describe(span, event)
            case "attempt-end":
                self._end_attempt(call.attempts.pop(event.attempt, None), event, at)
            case "call-answered":
                call.legs["b"] = self._tracer.start_span("leg b", call.context, SpanKind.CLIENT, start_time=at)
                call.legs["b"].set_attribute("trunkline.attempt", event.attempt)
                call.call.add_event("answered", timestamp=at)
            case "call-end":
                self._end_call(call, event, at)
            case _:
                span = call.attempts.get(event.attempt, call.call)
                span.add_event(event.kind, self._attributes(event), at)

    def _begin(self, event: Event, at: int) -> None:
        if len(self._calls) >= _MAX_CALLS:
            self._calls.pop(next(iter(self._calls))).call.end(at)
            self.dropped += 1
        span = self._tracer.start_span("call", Context(), SpanKind.SERVER, start_time=at)
        span.set_attribute("trunkline.call", event.call)
        self._describe(span, event)
        call = self._calls[event.call] = _Call(span, set_span_in_context(span, Context()))
        call.legs["a"] = self._tracer.start_span("leg a", call.context, SpanKind.SERVER, start_time=at)
        call.legs["a"].set_attributes(self._attributes(event))

    def _end_attempt(self, span: Span | None, event: Event, at: int) -> None:
        if span is None:
            return
        self._describe(span, event)
        good = event.fields.get("cause") == "answered"
        span.set_status(StatusCode.OK if good else StatusCode.ERROR, None if good else str(event.fields.get("cause")))
        span.end(at)

    def _end_call(self, call: _Call, event: Event, at: int) -> None:
        del self._calls[event.call]
        for span in (*call.attempts.values(), *call.legs.values()):
            span.end(at)
        self._describe(call.call, event)
        outcome = str(event.fields.get("outcome"))
        call.call.set_status(StatusCode.ERROR if outcome == "failed" else StatusCode.OK)
        call.call.end(at)

    def _describe(self, span: Span, event: Event) -> None:
        span.set_attributes(self._attributes(event))

    def _attributes(self, event: Event) -> dict[str, str | int | float | bool]:
        found: dict[str, str | int | float | bool] = {}
        for name, value in event.fields.items():
            if value is None or name == "attempts":
                continue
            key = _NAMES.get(name, f"trunkline.{name}")
            shown = plain(name, value, self._redactor)
            found[key] = shown if isinstance(shown, (str, int, float, bool)) else str(shown)
        if isinstance(status := event.fields.get("status"), int):
            found["sip.response.status_code"] = status
        return found
