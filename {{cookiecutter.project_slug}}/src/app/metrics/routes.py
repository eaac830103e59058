"""The metrics endpoint."""

from typing import Annotated

from fastapi import APIRouter, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from app.db.session import Database
from app.metrics.prometheus import PATH, Metrics
from app.metrics.settings import MetricsSettings
from app.web.dependencies import from_state
from app.web.operator_token import SentToken, require_token
from app.web.request_summary import RequestHooks

metrics_router = APIRouter(include_in_schema=False)
MetricsDep = Annotated[Metrics, from_state("metrics")]


@metrics_router.get(PATH)
async def read_metrics(metrics: MetricsDep, token: SentToken) -> Response:
    """Return the metrics for Prometheus. Production requires METRICS_TOKEN."""
    require_token(metrics.settings, metrics.settings.metrics_token, token)
    return Response(metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


def create_metrics(settings: MetricsSettings, database: Database, hooks: RequestHooks) -> Metrics:
    """Measure requests and connections.

    Args:
        settings: the token, and the labels of the build.
        database: the owner of the connections.
        hooks: receives the hooks of the metrics.
    """
    metrics = Metrics(settings, database.limiter)
    hooks.on_start.append(metrics.count_start)
    hooks.on_end.append(metrics.count_end)
    return metrics
