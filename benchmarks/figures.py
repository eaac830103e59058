"""What one run has measured."""

import statistics
from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class Sample:
    """What wrk measured in one round."""

    rate: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass
class Figures:
    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=lambda: defaultdict(list))
    ready_seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    resident: dict[str, float] = field(default_factory=dict)
    bake_seconds: dict[str, float] = field(default_factory=dict)

    def rate(self, work: str, name: str) -> float:
        return statistics.median(sample.rate for sample in self.samples[work, name])

    def spread(self, work: str, name: str) -> float:
        """How far the rounds lie apart, as a share of their median."""
        rates = [sample.rate for sample in self.samples[work, name]]
        return (max(rates) - min(rates)) / statistics.median(rates)

    def tail(self, work: str, name: str) -> float:
        return statistics.median(s.p99_ms / s.p50_ms for s in self.samples[work, name])
