"""The page and the plot of a benchmark run."""

import statistics
from dataclasses import dataclass
from html import escape
from pathlib import Path

from measurements import Measurements

HERE = Path(__file__).parent
WIDTH, BAR, LEFT = 820, 18, 420
NAMES = {"orm": "service written by hand"}


def before(name: str) -> str:
    """Return the name of the same service, baked from the commit to compare with."""
    return f"{name}, before"


@dataclass(frozen=True)
class Ratio:
    """The throughput of a service as a share of its baseline: a row of the table."""

    title: str
    work: str
    name: str
    baseline: str
    target: float | None = None

    def of(self, measured: Measurements) -> float:
        return measured.rate(self.work, self.name) / measured.rate(self.work, self.baseline)

    def before(self, measured: Measurements) -> float | None:
        """Return the ratio of the commit to compare with, if it was measured."""
        name = before(self.name)
        if (self.work, name) not in measured.samples:
            return None
        return measured.rate(self.work, name) / measured.rate(self.work, self.baseline)


# Shares of minimal FastAPI (health), and of FastAPI with the driver alone.
RATIOS = [
    Ratio("health, default bake", "health", "default", "minimal", 0.80),
    Ratio("health, metrics + tracing 10 % + sentry", "health", "all telemetry", "minimal", 0.70),
    Ratio("read one, connection", "read one", "no options", "rows", 0.50),
    Ratio("read one, session", "read one", "session", "rows", 0.33),
    Ratio("read one, from the cache", "read bookmark", "default", "rows", 0.65),
    Ratio("read ten, connection", "read ten", "no options", "rows", 0.50),
    Ratio("read ten, session", "read ten", "session", "rows", 0.36),
    Ratio("create one, statement in a session", "create one", "no options", "rows", 0.45),
    Ratio("create one, object in a session", "create one", "session", "rows", 0.22),
    Ratio(
        "create one, statement in a session / driver with BEGIN and COMMIT",
        "create one", "no options", "transactions", 0.40,
    ),
]  # fmt: skip
ORM_SESSIONS = [
    Ratio("read one, service written by hand", "read one", "orm", "rows"),
    Ratio("read ten, service written by hand", "read ten", "orm", "rows"),
    Ratio("create one, service written by hand", "create one", "orm", "rows"),
]
RATIO_COLUMNS = (
    *("measurement", "before", "ratio", "target", "requests/s", "baseline", "CPU"),
    *("baseline CPU", "spread"),
)
CONTROL = [
    Ratio(f"{work}, default bake / default bake", work, "control", "default")
    for work in ("health", "read bookmark", "read one", "read ten", "create one")
]
OPTIONS = (
    *("redis", "metrics", "tracing", "sentry", "rate_limit"),
    *("auth", "webhooks", "pgvector", "worker", "all telemetry"),
)


def page(measured: Measurements, rounds: int, seconds: float) -> str:
    sections = [
        _ratios(measured, rounds, seconds),
        _options(measured),
        _start(measured),
        _growth(measured),
        _outage(measured),
        _bakes(measured),
        _suite(measured),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _table(*heads: str) -> list[str]:
    return [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]


def _ratios(measured: Measurements, rounds: int, seconds: float) -> list[str]:
    return [
        "# Benchmark",
        "",
        "Written by `make bench`, except for sections that name another command. "
        "`run.py` describes the method.",
        "Throughput at 32 connections, one server process on one core.",
        f"Medians of {rounds} rounds of {seconds:g} s. Errors: {_errors(measured)}.",
        "Ratios of health are to minimal FastAPI, all others to FastAPI with asyncpg alone.",
        "The rows have no tags. `measured/routes.py` has the routes, in a bake without options.",
        "CPU is the time of the server process for one response.",
        *([f"Before: the services of {measured.before}, in the same run."] * bool(measured.before)),
        "",
        versions(measured),
        "",
        *_table(*RATIO_COLUMNS),
        *(row(ratio, measured) for ratio in [*RATIOS, *ORM_SESSIONS, *CONTROL]),
        "",
        "Tail latency of read one, p99 / p50: "
        f"connection {measured.tail('read one', 'no options'):.1f}, "
        f"session {measured.tail('read one', 'session'):.1f}, "
        f"FastAPI + asyncpg {measured.tail('read one', 'rows'):.1f}, "
        f"service written by hand {measured.tail('read one', 'orm'):.1f} (target: at most 3).",
    ]


def _errors(measured: Measurements) -> str:
    count = sum(sample.errors for samples in measured.samples.values() for sample in samples)
    reason = (
        "all from the service written by hand, whose connection pool is not first in, first out"
    )
    return f"{count}, {reason}" if count else "none"


def _options(measured: Measurements) -> list[str]:
    lines = [
        "## Cost of an option",
        "",
        "Throughput with one option, as a share of the throughput without options.",
        "`rate_limit` needs `redis`, so reads come from the cache.",
        "Health checks are neither traced nor rate-limited.",
        "",
        *_table("option", "health", "read bookmark"),
    ]
    for option in OPTIONS:
        shares = [
            measured.rate(work, option) / measured.rate(work, "no options")
            for work in ("health", "read bookmark")
        ]
        lines.append(f"| {option} | {shares[0]:.2f} | {shares[1]:.2f} |")
    return lines


def _start(measured: Measurements) -> list[str]:
    lines = [
        "## Startup time and memory",
        "",
        "Time until `/health/ready` succeeds (service written by hand: until the first row).",
        "Resident memory after some thousands of requests. Targets: 0.6 s and 95 MiB.",
        "",
        *_table("service", "ready after", "resident memory"),
    ]
    for name, seconds in measured.ready_seconds.items():
        middle, resident = statistics.median(seconds), measured.resident[name]
        lines.append(f"| {NAMES.get(name, name)} | {middle:.2f} s | {resident:.0f} MiB |")
    costs = ", ".join(f"{name} {ms:.0f}" for name, ms in measured.imports)
    return [*lines, "", f"Milliseconds to import `app.main`, by package: {costs}."]


def _growth(measured: Measurements) -> list[str]:
    lines = ["## Scaling", "", "Without options: every read queries the database."]
    for what, samples in measured.growth.items():
        lines += ["", *_table(what, "requests/s", "p50", "p99")]
        lines += [
            f"| {number} | {s.rate:.0f} | {s.p50_ms:.1f} ms | {s.p99_ms:.1f} ms |"
            for number, s in samples
        ]
    return lines


def _outage(measured: Measurements) -> list[str]:
    outage = measured.outage
    assert outage
    return [
        "## Overload",
        "",
        "256 clients while the table is locked: every connection of the pool is in use.",
        "Limits: 0.5 s of waiting for a connection, 1 s for a statement.",
        f"{outage.refusals} refusals and {outage.others} other responses, "
        f"{outage.rate:.0f} per second; the slowest took {outage.longest_ms:.0f} ms.",
        f"Meanwhile `/health/live` took at most {outage.live_ms:.0f} ms.",
        f"Afterwards {outage.rate_after:.0f} responses per second, {outage.errors_after} errors.",
    ]


def _bakes(measured: Measurements) -> list[str]:
    floor = statistics.median(measured.bake_seconds["one file"])
    lines = [
        "## Bake time",
        "",
        "The difference is to a template with one file: cookiecutter's own time.",
        "Targets: 0.3 s, and 2 s with the lock.",
        "",
        *_table("bake", "seconds", "difference"),
    ]
    for kind, seconds in measured.bake_seconds.items():
        middle = statistics.median(seconds)
        lines.append(f"| {kind} | {middle:.2f} | {middle - floor:.2f} |")
    return lines


def _suite(measured: Measurements) -> list[str]:
    total, *slow = measured.suite
    return [
        "## Tests of the default service",
        "",
        f"On all cores, with embedded PostgreSQL and Valkey: {total}. Slowest tests:",
        "",
        "```",
        *slow,
        "```",
    ]


def row(ratio: Ratio, measured: Measurements) -> str:
    target = f"{ratio.target:.2f}" if ratio.target else ""
    names = (ratio.name, ratio.baseline)
    rate, baseline_rate = (measured.rate(ratio.work, name) for name in names)
    cpu, baseline_cpu = (measured.cpu_us(ratio.work, name) for name in names)
    spread = measured.spread(ratio.work, ratio.name)
    earlier = ratio.before(measured)
    cells = [ratio.title, f"{earlier:.2f}" if earlier else "", f"{ratio.of(measured):.2f}", target]
    cells += [f"{rate:.0f}", f"{baseline_rate:.0f}"]
    cells += [f"{cpu:.0f} µs", f"{baseline_cpu:.0f} µs", f"{spread:.0%}"]
    return f"| {' | '.join(cells)} |"


def versions(measured: Measurements) -> str:
    template = (HERE.parent / "{{cookiecutter.project_slug}}" / "constraints.txt").read_text()
    names = ("asyncpg", "fastapi", "sqlalchemy", "starlette", "uvicorn", "uvloop")
    found = dict(line.split("  #")[0].split("==") for line in template.splitlines() if "==" in line)
    parts = [measured.python, *(f"{name} {found[name]}" for name in names), measured.wrk]
    return f"{', '.join(parts)}."


def plot(measured: Measurements) -> str:
    """Draw a bar for each ratio, with a mark at its target."""
    ratios = [*RATIOS, *ORM_SESSIONS]
    height = 34 + len(ratios) * (BAR + 10)
    scale = (WIDTH - LEFT - 60) / max(1.0, *(ratio.of(measured) for ratio in ratios))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        '<text x="10" y="18" font-weight="bold">Throughput as a share of the baseline'
        " (mark: target)</text>",
    ]
    for number, ratio in enumerate(ratios):
        top, value = 30 + number * (BAR + 10), ratio.of(measured)
        colour = "#9aa5b1" if ratio in ORM_SESSIONS else "#2f6f9f"
        parts += [
            f'<text x="{LEFT - 8}" y="{top + 13}" text-anchor="end">{escape(ratio.title)}</text>',
            f'<rect x="{LEFT}" y="{top}" width="{value * scale:.0f}" height="{BAR}" '
            f'fill="{colour}"/>',
            f'<text x="{LEFT + value * scale + 6:.0f}" y="{top + 13}">{value:.2f}</text>',
        ]
        if ratio.target:
            x = LEFT + ratio.target * scale
            parts.append(
                f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{top - 3}" y2="{top + BAR + 3}" '
                'stroke="#c0392b" stroke-width="2"/>'
            )
    return "\n".join([*parts, "</svg>", ""])
