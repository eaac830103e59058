"""The page and the plot of a run."""

import statistics
from dataclasses import dataclass
from html import escape
from pathlib import Path

from figures import Figures

HERE = Path(__file__).parent
WIDTH, BAR, LEFT = 820, 18, 385
NAMES = {"orm": "minimal FastAPI with ORM sessions"}


@dataclass(frozen=True)
class Ratio:
    """A line of the table: what was done, by whom, against which limit, and the aim."""

    title: str
    work: str
    name: str
    limit: str
    aim: float | None = None

    def of(self, figures: Figures) -> float:
        return figures.rate(self.work, self.name) / figures.rate(self.work, self.limit)


RATIOS = [
    Ratio("health, default bake / minimal FastAPI", "health", "default", "minimal", 0.80),
    Ratio(
        "health, metrics + tracing 10 % + sentry / minimal FastAPI",
        "health", "all telemetry", "minimal", 0.50,
    ),
    Ratio("read one, no options / FastAPI + asyncpg", "read one", "no options", "rows", 0.55),
    Ratio("read one, default bake: from the cache / the same", "read one", "default", "rows"),
    Ratio("read ten, no options / FastAPI + asyncpg", "read ten", "no options", "rows", 0.50),
    Ratio("create one, no options / FastAPI + asyncpg", "create one", "no options", "rows", 0.45),
    Ratio(
        "the same / FastAPI + asyncpg with BEGIN and COMMIT",
        "create one", "no options", "transactions",
    ),
]  # fmt: skip
NAIVE = [
    Ratio("read one, ORM session / FastAPI + asyncpg", "read one", "orm", "rows"),
    Ratio("read ten, ORM session / FastAPI + asyncpg", "read ten", "orm", "rows"),
    Ratio("create one, ORM session / FastAPI + asyncpg", "create one", "orm", "rows"),
]
CONTROL = [
    Ratio(f"{work}, the default bake twice", work, "control", "default")
    for work in ("health", "read one", "read ten", "create one")
]
OPTIONS = (
    *("redis", "metrics", "tracing", "sentry", "rate_limit"),
    *("auth", "webhooks", "pgvector", "worker", "all telemetry"),
)


def page(figures: Figures, rounds: int, seconds: float) -> str:
    sections = [
        _ratios(figures, rounds, seconds),
        _options(figures),
        _start(figures),
        _growth(figures),
        _outage(figures),
        _bakes(figures),
        _suite(figures),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _table(*heads: str) -> list[str]:
    return [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]


def _ratios(figures: Figures, rounds: int, seconds: float) -> list[str]:
    return [
        "# Benchmark",
        "",
        "Made by `make bench`; `run.py` says how.",
        "Throughput at 32 connections, one server process on one core.",
        f"Medians of {rounds} rounds of {seconds:g} s, taken in turns. Errors: {_errors(figures)}.",
        "CPU is what the server itself computed for one answer.",
        "",
        versions(figures),
        "",
        *_table("what", "ratio", "aim", "requests/s", "limit's", "CPU", "limit's", "spread"),
        *(row(ratio, figures) for ratio in [*RATIOS, *NAIVE, *CONTROL]),
        "",
        f"The tail of reading one, p99 / p50: default {figures.tail('read one', 'default'):.1f}, "
        f"no options {figures.tail('read one', 'no options'):.1f}, "
        f"FastAPI + asyncpg itself {figures.tail('read one', 'rows'):.1f}, "
        f"ORM session {figures.tail('read one', 'orm'):.1f} (aim: at most 3).",
    ]


def _errors(figures: Figures) -> str:
    count = sum(sample.errors for samples in figures.samples.values() for sample in samples)
    return f"{count}, all of the ORM sessions, which let requests overtake" if count else "none"


def _options(figures: Figures) -> list[str]:
    lines = [
        "## What an option costs",
        "",
        "The same service with one option more, over the service without any.",
        "`rate_limit` and `worker` bring Redis with them, which reads from the cache.",
        "Probes are neither traced nor limited.",
        "",
        *_table("option", "health", "read one"),
    ]
    for option in OPTIONS:
        shares = [
            figures.rate(work, option) / figures.rate(work, "no options")
            for work in ("health", "read one")
        ]
        lines.append(f"| {option} | {shares[0]:.2f} | {shares[1]:.2f} |")
    return lines


def _start(figures: Figures) -> list[str]:
    lines = [
        "## Start and memory",
        "",
        "Until the first ready answer (for the ORM session: the first row); resident after some",
        "thousands of requests. Aims: 0.7 s and 85 MiB.",
        "",
        *_table("service", "ready after", "resident"),
    ]
    for name, seconds in figures.ready_seconds.items():
        middle, resident = statistics.median(seconds), figures.resident[name]
        lines.append(f"| {NAMES.get(name, name)} | {middle:.2f} s | {resident:.0f} MiB |")
    costs = ", ".join(f"{name} {ms:.0f}" for name, ms in figures.imports)
    return [*lines, "", f"Milliseconds of `import app.main`, with every import's own: {costs}."]


def _growth(figures: Figures) -> list[str]:
    lines = ["## How cost grows", "", "Without options, so that every read asks the database."]
    for what, samples in figures.growth.items():
        lines += ["", *_table(what, "requests/s", "p50", "p99")]
        lines += [
            f"| {number} | {s.rate:.0f} | {s.p50_ms:.1f} ms | {s.p99_ms:.1f} ms |"
            for number, s in samples
        ]
    return lines


def _outage(figures: Figures) -> list[str]:
    outage = figures.outage
    assert outage
    return [
        "## More than the pool can bear",
        "",
        "256 connections while the table is locked, so that every connection of the pool is held;",
        "0.5 s is the longest wait for one, and 1 s for a statement.",
        f"{outage.refusals} refusals and {outage.others} other answers, "
        f"{outage.rate:.0f} a second; the slowest after {outage.longest_ms:.0f} ms.",
        f"Meanwhile `/health/live` answered within {outage.live_ms:.0f} ms.",
        f"After it {outage.rate_after:.0f} answers a second, {outage.errors_after} errors.",
    ]


def _bakes(figures: Figures) -> list[str]:
    floor = statistics.median(figures.bake_seconds["one file"])
    lines = [
        "## Bake",
        "",
        "Beyond cookiecutter's own time for a template of one file. Aims: 0.3 s, and 2 s with the",
        "lock.",
        "",
        *_table("bake", "seconds", "beyond the floor"),
    ]
    for kind, seconds in figures.bake_seconds.items():
        middle = statistics.median(seconds)
        lines.append(f"| {kind} | {middle:.2f} | {middle - floor:.2f} |")
    return lines


def _suite(figures: Figures) -> list[str]:
    total, *slow = figures.suite
    return [
        "## The default service's own tests",
        "",
        f"On all cores, with PostgreSQL and Valkey of their own: {total}. The slowest:",
        "",
        "```",
        *slow,
        "```",
    ]


def row(ratio: Ratio, figures: Figures) -> str:
    aim = f"{ratio.aim:.2f}" if ratio.aim else ""
    ours, limit = figures.rate(ratio.work, ratio.name), figures.rate(ratio.work, ratio.limit)
    cpu, least = (figures.cpu_us(ratio.work, name) for name in (ratio.name, ratio.limit))
    spread = figures.spread(ratio.work, ratio.name)
    cells = [ratio.title, f"{ratio.of(figures):.2f}", aim, f"{ours:.0f}", f"{limit:.0f}"]
    cells += [f"{cpu:.0f} µs", f"{least:.0f} µs", f"{spread:.0%}"]
    return f"| {' | '.join(cells)} |"


def versions(figures: Figures) -> str:
    template = (HERE.parent / "{{cookiecutter.project_slug}}" / "constraints.txt").read_text()
    names = ("asyncpg", "fastapi", "sqlalchemy", "starlette", "uvicorn", "uvloop")
    found = dict(line.split("  #")[0].split("==") for line in template.splitlines() if "==" in line)
    parts = [figures.python, *(f"{name} {found[name]}" for name in names), figures.wrk]
    return f"{', '.join(parts)}."


def plot(figures: Figures) -> str:
    """A bar for each ratio; a mark where the aim is."""
    ratios = [*RATIOS, *NAIVE]
    height = 34 + len(ratios) * (BAR + 10)
    scale = (WIDTH - LEFT - 60) / max(1.0, *(ratio.of(figures) for ratio in ratios))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        '<text x="10" y="18" font-weight="bold">Throughput as a share of the limit'
        " (mark: the aim)</text>",
    ]
    for number, ratio in enumerate(ratios):
        top, value = 30 + number * (BAR + 10), ratio.of(figures)
        colour = "#9aa5b1" if ratio in NAIVE else "#2f6f9f"
        parts += [
            f'<text x="{LEFT - 8}" y="{top + 13}" text-anchor="end">{escape(ratio.title)}</text>',
            f'<rect x="{LEFT}" y="{top}" width="{value * scale:.0f}" height="{BAR}" '
            f'fill="{colour}"/>',
            f'<text x="{LEFT + value * scale + 6:.0f}" y="{top + 13}">{value:.2f}</text>',
        ]
        if ratio.aim:
            x = LEFT + ratio.aim * scale
            parts.append(
                f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{top - 3}" y2="{top + BAR + 3}" '
                'stroke="#c0392b" stroke-width="2"/>'
            )
    return "\n".join([*parts, "</svg>", ""])
