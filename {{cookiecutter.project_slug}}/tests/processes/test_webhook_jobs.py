import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from app.db.session import Database, open_database
from app.features.webhooks.jobs import process_deliveries
from app.features.webhooks.service import STORE
from app.jobs.attempts import attempt
from app.settings import Settings
from conftest import Lines
from processes import MIGRATE_AND_SERVE, Service, environment, wait_until
from sql import fetch
from stored_jobs import context_of, store
from valkey_server import start_valkey  # option: celery
from webhook_senders import hub_request, standard_request

KEY = bytes(32)
SECRETS = "shop:whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
SCHEDULE = '    cron="* * * * *",\n'
_STATES = text("SELECT attempts, processed_at FROM webhook_deliveries ORDER BY id")


@pytest.fixture
async def database(settings: Settings, clean_tables: None) -> AsyncIterator[Database]:
    assert clean_tables is None
    async with open_database(settings) as database:
        yield database


async def test_job_processes_each_due_delivery_once(database: Database, lines: Lines) -> None:
    async with database.session() as session:
        for number in range(3):
            values = {"source": "shop", "id": f"msg_{number}", "body": b"{}"}
            await fetch(session, STORE, values)
    context = context_of(database, process_deliveries)
    for _ in range(2):
        job_id = await store(database, process_deliveries)
        assert await attempt(context, job_id) is None
    results = [line["result"] for line in lines() if line["message"] == "job done"]
    assert results == [3, 0]
    rows = await fetch(database, _STATES)
    assert [(row.attempts, row.processed_at is not None) for row in rows] == [(1, True)] * 3


async def test_delivery_is_processed_by_the_worker_and_not_by_the_service(
    empty_database: str, source: Path
) -> None:
    # The run of the schedule may process the delivery first, and has no request id.
    jobs = source / "app" / "features" / "webhooks" / "jobs.py"
    assert SCHEDULE in jobs.read_text()
    jobs.write_text(jobs.read_text().replace(SCHEDULE, ""))
    request = standard_request(b'{"type": "order.paid"}', KEY)
    with ExitStack() as stack:
        env = environment(empty_database, WEBHOOK_SECRETS=SECRETS)
        env["REDIS_URL"] = stack.enter_context(start_valkey()).url  # option: celery
        service = stack.enter_context(Service(MIGRATE_AND_SERVE, env))
        url = await asyncio.to_thread(service.wait_until_ready)
        response = await asyncio.to_thread(httpx.post, f"{url}/webhooks/shop", **request)
        assert (response.status_code, response.json()) == (202, {"status": "stored"})
        await asyncio.sleep(3)  # longer than a background processor waits before its first run
        assert "webhook" not in service.messages()
        worker_env = env | {"PYTHONPATH": str(source)}
        worker = stack.enter_context(Service(["app", "worker"], worker_env))
        await asyncio.to_thread(wait_until, lambda: "webhook" in worker.messages(), doing=worker)
        (line,) = [line for line in worker.lines if line["message"] == "webhook"]
    assert line["request_id"] == response.headers["X-Request-Id"]
    assert (line["source"], line["id"]) == ("shop", "msg_1")


async def test_meta_and_github_deliveries_are_processed_once_by_the_worker(
    empty_database: str,
) -> None:
    secret = secrets.token_hex(16)
    updates = [{"value": {"messages": [{"id": f"wamid.{number}"}]}} for number in range(2)]
    batch = json.dumps({"entry": [{"changes": updates}]}).encode()
    sent = [("whatsapp", batch, 200), ("ci", b"{}", 202)]
    sources = f"whatsapp:meta:{secret},ci:github:{secret}"
    with ExitStack() as stack:
        env = environment(empty_database, WEBHOOK_SECRETS=sources)
        env["REDIS_URL"] = stack.enter_context(start_valkey()).url  # option: celery
        service = stack.enter_context(Service(MIGRATE_AND_SERVE, env))
        url = await asyncio.to_thread(service.wait_until_ready)
        for expected in ("stored", "repeated"):
            for source, body, status in sent:
                request = hub_request(body, secret, **{"X-GitHub-Event": "ping"})
                response = await asyncio.to_thread(
                    httpx.post, f"{url}/webhooks/{source}", **request
                )
                assert (response.status_code, response.json()) == (status, {"status": expected})
        worker = stack.enter_context(Service(["app", "worker"], env))
        await asyncio.to_thread(
            wait_until, lambda: worker.messages().count("webhook") == 3, doing=worker
        )
        processed = [line["source"] for line in worker.lines if line["message"] == "webhook"]
        assert sorted(processed) == ["ci", "whatsapp", "whatsapp"]
        assert "webhook" not in service.messages()
        assert secret not in service.stdout + worker.stdout
