"""Traces of requests for OpenTelemetry: a span for each request, and one below it for each stage of a prediction.

The spans are made when the answer has been sent, from its `Server-Timing`: a stage works for a whole batch, and a
request that is not sampled costs nothing but the look for its `traceparent` (W3C Trace Context). A thread sends them.
The exporter's own settings, such as `OTEL_EXPORTER_OTLP_HEADERS` with a collector's key, are the environment's.
"""

import os
import threading
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.access import OPEN, path_below

_FLUSH_S = 2.0
"""How long a stop waits for the collector to take the last spans."""
_CONTEXT = (b"traceparent", b"tracestate")
_NONE_OF_OURS = (401, 404, 405)
"""Statuses of requests with a path or a method that a stranger may have made up, and so any number of names."""


class Spans:
    """Traces what an ASGI application answers; probes and the documentation are left out.

    Args:
        endpoint, share: see `deployments.tracing.TracingConfig`.
    """

    def __init__(self, endpoint: str, share: float) -> None:
        self._share = share
        resource = Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "switchboard")})
        sampler = ParentBased(TraceIdRatioBased(share))
        self._provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        self._tracer = self._provider.get_tracer("switchboard")
        self._context = TraceContextTextMapPropagator()

    def around(self, app: ASGIApp) -> ASGIApp:
        """The same application, traced."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            span = self._begun(scope)
            if span is None:
                await app(scope, receive, send)
                return
            answer: Message = {}

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    answer.update(message)
                await send(message)

            began, at_ns = time.perf_counter_ns(), time.time_ns()
            try:
                await app(scope, receive, noting)
            finally:
                self._end(span, scope, answer, at_ns, at_ns + time.perf_counter_ns() - began)

        return traced

    def close(self) -> None:
        """Send what is left; what the collector does not take within two seconds is lost."""
        flushing = threading.Thread(target=self._provider.shutdown, daemon=True)
        flushing.start()
        flushing.join(_FLUSH_S)

    def _begun(self, scope: Scope) -> Span | None:
        """The span of a request that is to be traced."""
        if scope["type"] != "http" or path_below(scope).startswith(OPEN):
            return None
        given = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _CONTEXT}
        if not given and not self._share:
            return None
        span = self._tracer.start_span("HTTP", self._context.extract(given), SpanKind.SERVER)
        return span if span.is_recording() else None

    def _end(self, span: Span, scope: Scope, answer: Message, began_ns: int, ended_ns: int) -> None:
        method, path, status = scope["method"], path_below(scope), answer.get("status", 500)
        span.set_attribute("http.response.status_code", status)
        if status not in _NONE_OF_OURS:
            span.update_name(f"{method} {path}")
            span.set_attributes({"http.request.method": method, "http.route": path})
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        timing = dict(answer.get("headers", ())).get(b"server-timing", b"").decode()
        for name, (start_ms, end_ms) in stage_times(timing).items():
            start_ns, end_ns = (began_ns + int(ms * 1e6) for ms in (start_ms, end_ms))
            self._tracer.start_span(name, set_span_in_context(span), start_time=start_ns).end(end_ns)
        span.end(ended_ns)


def stage_times(timing: str) -> dict[str, tuple[float, float]]:
    """When the stages of a prediction began and ended, in milliseconds since it came, from its `Server-Timing`.

    Features are gathered beside the work on the text; the cache waits for the classifier, and that for the inference.
    """
    parts = (part.partition(";dur=") for part in timing.split(", ") if part)
    spent = {name: float(duration) for name, _, duration in parts}
    queue, gather, preprocess, cache = (spent.get(name, 0.0) for name in ("queue", "gather", "preprocess", "cache"))
    looked_up = queue + preprocess
    known = looked_up + cache
    classified = max(looked_up, known - spent.get("classify", 0.0))
    fused = max(known, queue + gather)
    starts = {
        "queue": 0.0,
        "gather": queue,
        "preprocess": queue,
        "cache": looked_up,
        "classify": classified,
        "inference": max(classified, known - spent.get("inference", 0.0)),
        "fuse": fused,
        "decide": fused + spent.get("fuse", 0.0),
    }
    return {name: (start, start + spent[name]) for name, start in starts.items() if spent.get(name)}
