"""Samples of a response of /metrics."""

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

REQUESTS = "http_requests_total"


class Scrape:
    """The samples of one response of /metrics."""

    def __init__(self, text: str) -> None:
        self.families: list[Metric] = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with this name and at least these labels."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def labels(self, name: str) -> list[dict[str, str]]:
        return [sample.labels for sample in self.samples if sample.name == name]

    @property
    def requests(self) -> set[tuple[str, str, str]]:
        return {(s["method"], s["route"], s["status"]) for s in self.labels(REQUESTS)}
