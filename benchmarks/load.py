"""Load by wrk."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from services import Server

HERE = Path(__file__).parent
CONNECTIONS = 32
MILLISECONDS = {"us": 0.001, "ms": 1, "s": 1000, "m": 60_000}


@dataclass
class Sample:
    """The measurements of one run of wrk.

    Attributes:
        rate: responses per second.
        cpu_us: CPU time of the server process for one response, in microseconds.
        errors: responses other than 2xx and 3xx, broken connections, and timeouts after 2 s.
    """

    answers: int
    rate: float
    p50_ms: float
    p99_ms: float
    longest_ms: float
    cpu_us: float
    errors: int


def load(
    server: Server,
    path: str,
    seconds: int,
    cores: set[int],
    *,
    connections: int = CONNECTIONS,
    creates: bool = False,
) -> Sample:
    """Send requests as fast as the server responds, from these cores."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    if creates:
        command += ["-s", str(HERE / "create.lua")]
    before = server.cpu_seconds()
    output = subprocess.run(
        [*command, f"http://127.0.0.1:{server.port}{path}"],
        env={**os.environ, "TAG": os.urandom(8).hex(), "TARGET": path},
        check=True, capture_output=True, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    ).stdout  # fmt: skip
    used = server.cpu_seconds() - before
    answers = int(re.findall(r"(\d+) requests in", output)[0])
    errors = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", output)))
    for line in re.findall(r"Socket errors: (.*)", output):
        errors += sum(map(int, re.findall(r"\d+", line)))
    return Sample(
        answers=answers,
        rate=float(re.findall(r"Requests/sec:\s+([\d.]+)", output)[0]),
        p50_ms=_milliseconds(output, r"50%\s+"),
        p99_ms=_milliseconds(output, r"99%\s+"),
        longest_ms=_milliseconds(output, r"Latency\s+\S+\s+\S+\s+"),
        cpu_us=used / max(answers, 1) * 1e6,
        errors=errors,
    )


def _milliseconds(output: str, before: str) -> float:
    number, unit = re.findall(rf"{before}([\d.]+)(us|ms|s|m)", output)[0]
    return float(number) * MILLISECONDS[unit]
