"""scripts/smoke_test.py with this service."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest  # option: oidc

from oidc_provider import AUDIENCE  # option: oidc
from processes import MIGRATE_AND_SERVE, ROOT, Service, environment
from provider_accounts import shared_provider  # option: oidc
from smoke_test import EXAMPLES


def smoke_test(url: str, *arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/smoke_test.py", url, *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


async def test_smoke_test_of_this_service_passes_with_and_without_writes(
    empty_database: str,
    monkeypatch: pytest.MonkeyPatch,  # option: oidc
) -> None:
    env = environment(empty_database, COMMIT_SHA="c0ffee", DRAIN_SECONDS="0")
    provider = shared_provider()  # option: oidc
    env |= {"OIDC_ISSUER": provider.issuer, "OIDC_AUDIENCE": AUDIENCE}  # option: oidc
    monkeypatch.setenv("SMOKE_TOKEN", provider.issue())  # option: oidc
    with Service(MIGRATE_AND_SERVE, env) as service:
        url = service.url

        def count_created() -> int:
            requests = [line for line in service.lines if line.get("method") == "POST"]
            return len([line for line in requests if line["path"] in EXAMPLES])

        reading = await asyncio.to_thread(smoke_test, url, "--commit", "c0ffee", "--wait", "20")
        assert reading.returncode == 0, reading.stderr
        assert reading.stdout == f"{url}: c0ffee works\n"
        assert count_created() == 0
        writing = await asyncio.to_thread(smoke_test, url, "--write")
        assert writing.returncode == 0, writing.stderr
        assert count_created() == len(EXAMPLES)
        deleted = [line for line in service.lines if line.get("method") == "DELETE"]
        assert [line["status"] for line in deleted] == [204] * len(EXAMPLES)
