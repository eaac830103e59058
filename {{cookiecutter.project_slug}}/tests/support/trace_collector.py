"""A collector of traces over OTLP, for tests."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from processes import Received, Receiver

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def spans(collector: Receiver) -> list[dict[str, Any]]:
    """Return the exported spans. A request that is not OTLP fails the test."""
    return [span for request in collector.received for span in spans_of(request)]


def spans_of(request: Received) -> Iterator[dict[str, Any]]:
    assert request.path == "/v1/traces"
    message = ExportTraceServiceRequest.FromString(request.body)
    for group in message.resource_spans:
        resource = {a.key: a.value.string_value for a in group.resource.attributes}
        for scope in group.scope_spans:
            for span in scope.spans:
                yield {
                    "name": span.name,
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "failed": span.status.code == 2,
                    "attributes": {
                        a.key: a.value.string_value or a.value.int_value for a in span.attributes
                    },
                    "resource": resource,
                    "events": len(span.events),
                }
