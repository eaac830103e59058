"""The page and the plot of a run."""

import platform
import statistics
import subprocess
from dataclasses import dataclass
from html import escape
from pathlib import Path

from figures import Figures

HERE = Path(__file__).parent
WIDTH, BAR, LEFT = 760, 18, 330


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
OPTIONS = ("redis", "metrics", "tracing", "sentry", "rate_limit")


def page(figures: Figures, rounds: int, seconds: float) -> str:
    lines = [
        "# Benchmark",
        "",
        "Made by `make bench`: see `run.py` for how. Throughput at 32 connections, one server",
        f"process on one core; medians of {rounds} rounds of {seconds:g} s, taken in turns.",
        "",
        f"{versions()}",
        "",
        "| what | ratio | aim | requests/s | limit's | spread of rounds |",
        "|---|---|---|---|---|---|",
        *(row(ratio, figures) for ratio in [*RATIOS, *NAIVE, *CONTROL]),
        "",
        "## What an option costs",
        "",
        "The same service with one option more, over the service without any.",
        "",
        "| option | health | read one |",
        "|---|---|---|",
    ]
    for option in (*OPTIONS, "all telemetry"):
        shares = [
            figures.rate(work, option) / figures.rate(work, "no options")
            for work in ("health", "read one")
        ]
        lines.append(f"| {option} | {shares[0]:.2f} | {shares[1]:.2f} |")
    lines += [
        "",
        "Probes are neither traced nor limited. `redis` and `rate_limit` read from the cache.",
        "",
        "## Start, memory, tail",
        "",
        "| service | ready after | resident | p99 / p50, read one | bake, with its lock |",
        "|---|---|---|---|---|",
    ]
    for name in ("default", "no options", "all telemetry"):
        lines.append(
            f"| {name} | {statistics.median(figures.ready_seconds[name]):.2f} s "
            f"| {figures.resident[name]:.0f} MiB | {figures.tail('read one', name):.1f} "
            f"| {figures.bake_seconds[name]:.1f} s |"
        )
    return "\n".join([*lines, ""])


def row(ratio: Ratio, figures: Figures) -> str:
    aim = f"{ratio.aim:.2f}" if ratio.aim else ""
    ours, limit = figures.rate(ratio.work, ratio.name), figures.rate(ratio.work, ratio.limit)
    spread = figures.spread(ratio.work, ratio.name)
    value = f"{ratio.of(figures):.2f}"
    return f"| {ratio.title} | {value} | {aim} | {ours:.0f} | {limit:.0f} | {spread:.0%} |"


def versions() -> str:
    template = (HERE.parent / "{{cookiecutter.project_slug}}" / "constraints.txt").read_text()
    names = ("asyncpg", "fastapi", "sqlalchemy", "starlette", "uvicorn", "uvloop")
    found = dict(line.split("  #")[0].split("==") for line in template.splitlines() if "==" in line)
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
    return ", ".join(
        [f"Python {platform.python_version()}", *(f"{name} {found[name]}" for name in names),
         wrk.split(" [")[0].strip()]
    ) + "."  # fmt: skip


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
