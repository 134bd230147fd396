"""A collector of traces: OTLP over HTTP, as OpenTelemetry's own has it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """What has come so far.

    Attributes:
        url: for `tracing.endpoint`.
        exports: the requests.
    """

    url: str = ""
    exports: list[ExportTraceServiceRequest] = field(default_factory=list)

    def spans(self, trace: str = "") -> list[Span]:
        """The spans of one trace, or of all, in the order in which they began."""
        scopes = (
            scope for export in self.exports for resource in export.resource_spans for scope in resource.scope_spans
        )
        spans = [span for scope in scopes for span in scope.spans if trace in span.trace_id.hex()]
        return sorted(spans, key=lambda span: (span.start_time_unix_nano, -span.end_time_unix_nano))


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a port of its own."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.exports.append(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield collector
        server.shutdown()
        thread.join()
