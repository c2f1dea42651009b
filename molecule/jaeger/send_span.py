"""Send one span over OTLP, the way an engine does, and print its trace id."""

import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=sys.argv[1], insecure=True)))
trace.set_tracer_provider(provider)
with trace.get_tracer("molecule").start_as_current_span("molecule") as span:
    print(f"{span.get_span_context().trace_id:032x}")
provider.shutdown()
