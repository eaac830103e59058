"""The measurements of a benchmark run."""

import statistics
from collections import defaultdict
from dataclasses import dataclass, field

from load import Sample


@dataclass
class Outage:
    """Responses while every connection of the pool is blocked, and afterwards."""

    rate: float
    longest_ms: float
    refusals: int
    others: int
    live_ms: float
    rate_after: float
    errors_after: int


@dataclass
class Measurements:
    """Measurements by kind of request and name of the service."""

    python: str  # version
    wrk: str  # version
    before: str = ""  # the commit that is measured as well
    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=lambda: defaultdict(list))
    bake_seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ready_seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    resident: dict[str, float] = field(default_factory=dict)
    imports: list[tuple[str, float]] = field(default_factory=list)
    suite: list[str] = field(default_factory=list)
    growth: dict[str, list[tuple[int, Sample]]] = field(default_factory=lambda: defaultdict(list))
    outage: Outage | None = None

    def rate(self, work: str, name: str) -> float:
        return statistics.median(sample.rate for sample in self.samples[work, name])

    def cpu_us(self, work: str, name: str) -> float:
        return statistics.median(sample.cpu_us for sample in self.samples[work, name])

    def spread(self, work: str, name: str) -> float:
        """Return the range of the rounds, as a share of their median."""
        rates = [sample.rate for sample in self.samples[work, name]]
        return (max(rates) - min(rates)) / statistics.median(rates)

    def tail(self, work: str, name: str) -> float:
        return statistics.median(s.p99_ms / s.p50_ms for s in self.samples[work, name])
