"""scripts/smoke_test.py without an access token."""

import subprocess
import sys
from pathlib import Path

from processes import ROOT, serve_responses
from smoke_test import EXAMPLES

PROBES = {
    path: (200, {"commit": "c0ffee"}) for path in ("/health", "/health/live", "/health/ready")
}


def test_smoke_test_without_an_access_token_writes_nothing(tmp_path: Path) -> None:
    lines = (ROOT / "scripts" / "smoke_test.py").read_text().splitlines(keepends=True)
    lines = [line for line in lines if "option: accounts" not in line]  # in the template only
    script = tmp_path / "smoke_test.py"
    script.write_text("".join(lines))
    with serve_responses(PROBES | {path: (200, {}) for path in EXAMPLES}) as url:
        result = subprocess.run(
            [sys.executable, script, url, "--write"],
            env={},
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("nothing is written: set SMOKE_TOKEN")
