"""Several processes of the service, and the clients in docs/webhooks.md."""

import asyncio
import base64
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from app.db.migrate import migrate
from app.db.session import open_database
from app.features.webhooks.service import STORE
from conftest import settings_for
from processes import MIGRATE_AND_SERVE, ROOT, Service, environment, wait_until
from sql import fetch
from valkey_server import start_valkey  # option: celery
from webhook_senders import hub_request, standard_request

KEY = os.urandom(32)
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
HUBS = {"whatsapp": "meta", "ci": "github"}
HUB = secrets.token_hex(16)
SLOW = """
import os
import time

async def process(event, session):
    log.info("webhook begun", id=event.id)
    time.sleep(float(os.environ.get("OF_THIS_TEST", "0")))
    log.info("webhook", source=event.source, id=event.id)
"""


def env_for(database_url: str, **variables: str) -> dict[str, str]:
    hubs = ",".join(f"{source}:{kind}:{HUB}" for source, kind in HUBS.items())
    return environment(database_url, WEBHOOK_SECRETS=f"shop:{SECRET},{hubs}", **variables)


@pytest.fixture
def services() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start_two(stack: ExitStack, env: dict[str, str]) -> tuple[list[Service], list[Service]]:
    """Start two processes of the service, and return them and those that process deliveries."""
    both = [stack.enter_context(Service(MIGRATE_AND_SERVE, env)) for _ in range(2)]
    for service in both:
        service.wait_until_ready()
    processing = both
    env = env | {"REDIS_URL": stack.enter_context(start_valkey()).url}  # option: celery
    worker = ["app", "worker"]  # option: worker
    processing = [stack.enter_context(Service(worker, env)) for _ in range(2)]  # option: worker
    return both, processing


async def attempts(url: str) -> list[tuple[int, bool]]:
    async with open_database(settings_for(url)) as database:
        statement = text("SELECT attempts, processed_at FROM webhook_deliveries")
        rows = await fetch(database, statement)
    return [(row["attempts"], row["processed_at"] is not None) for row in rows]


async def test_same_delivery_to_two_processes_is_processed_once(
    empty_database: str, services: ExitStack
) -> None:
    env = env_for(empty_database)
    both, processing = await asyncio.to_thread(start_two, services, env)
    urls = [service.url for service in both]
    request = standard_request(b'{"type": "order.paid"}', KEY)
    async with httpx.AsyncClient(timeout=30) as client:
        responses = await asyncio.gather(
            *(client.post(f"{urls[n % 2]}/webhooks/shop", **request) for n in range(20))
        )
    assert {response.status_code for response in responses} == {202}
    assert sorted(r.json()["status"] for r in responses) == ["repeated"] * 19 + ["stored"]

    def count() -> int:
        return sum(process.messages().count("webhook") for process in processing)

    wait_until(lambda: count() > 0, doing=processing[0])
    await asyncio.sleep(3)  # both processes have looked for due events at least once
    assert count() == 1
    assert await attempts(empty_database) == [(1, True)]
    (stored,) = [line for s in both for line in s.lines if line["message"] == "webhook stored"]
    assert (stored["source"], stored["id"]) == ("shop", "msg_1")
    assert stored["request_id"]
    for service in both:
        assert SECRET not in service.stdout + service.stderr
        assert service.stderr == ""


async def test_meta_update_to_two_processes_in_several_batches_is_processed_once(
    empty_database: str, services: ExitStack
) -> None:
    env = env_for(empty_database)
    both, processing = await asyncio.to_thread(start_two, services, env)
    urls = [service.url for service in both]
    changes = [
        {"field": "messages", "value": {"messages": [{"id": f"wamid.{number}"}]}}
        for number in range(3)
    ]
    bodies = [
        json.dumps(
            {"object": "whatsapp_business_account", "entry": [{"changes": list(order)}]}
        ).encode()
        for order in itertools.permutations(changes)
    ]
    async with httpx.AsyncClient(timeout=30) as client:
        responses = await asyncio.gather(
            *(
                client.post(f"{url}/webhooks/whatsapp", **hub_request(body, HUB))
                for url, body in itertools.product(urls, bodies)
            )
        )
    assert {response.status_code for response in responses} == {200}
    assert sorted(r.json()["status"] for r in responses) == ["repeated"] * 11 + ["stored"]

    def count() -> int:
        return sum(process.messages().count("webhook") for process in processing)

    wait_until(lambda: count() == 3, doing=processing[0])
    await asyncio.sleep(3)  # both processes have looked for due events at least once
    assert count() == 3
    assert await attempts(empty_database) == [(1, True)] * 3
    for service in both:
        assert HUB not in service.stdout + service.stderr
        assert service.stderr == ""


async def test_event_of_a_killed_process_is_done_by_the_next_start(
    empty_database: str, source: Path, services: ExitStack
) -> None:
    await migrate(settings_for(empty_database))
    async with (
        open_database(settings_for(empty_database)) as database,
        database.session() as session,
    ):
        await fetch(session, STORE, {"source": "shop", "id": "msg_1", "body": b"{}"})
    module = source / "app" / "features" / "webhooks" / "process.py"
    module.write_text(module.read_text() + SLOW)
    env = env_for(empty_database, PYTHONPATH=str(source))
    command = MIGRATE_AND_SERVE
    command = ["app", "worker"]  # option: worker
    env |= {"REDIS_URL": services.enter_context(start_valkey()).url}  # option: celery
    killed = services.enter_context(Service(command, env | {"OF_THIS_TEST": "60"}))
    wait_until(lambda: "webhook begun" in killed.messages(), doing=killed)
    os.killpg(killed.process.pid, signal.SIGKILL)
    killed.wait()
    assert await attempts(empty_database) == [(0, False)]
    after = services.enter_context(Service(command, env))
    wait_until(lambda: "webhook" in after.messages(), doing=after)
    async with asyncio.timeout(30):
        while await attempts(empty_database) != [(1, True)]:
            await asyncio.sleep(0.05)


def blocks(language: str) -> list[str]:
    page = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


async def test_clients_of_the_webhooks_page_sign_correctly(
    empty_database: str, services: ExitStack
) -> None:
    (service, _), processing = await asyncio.to_thread(start_two, services, env_for(empty_database))
    url = service.url
    env = os.environ | {"URL": f"{url}/webhooks/shop", "WEBHOOK_SECRET": SECRET}
    (python,), (standard, hub) = blocks("python"), blocks("sh")
    sources = {
        source: {"URL": f"{url}/webhooks/{source}", "WEBHOOK_SECRET": HUB} for source in HUBS
    }
    commands: list[tuple[list[str], dict[str, str]]] = [([sys.executable, "-c", python], {})]
    if all(map(shutil.which, ("sh", "openssl", "curl", "od"))):
        commands += [(["sh", "-e", "-c", standard], {})]
        commands += [(["sh", "-e", "-c", hub], variables) for variables in sources.values()]
    for command, variables in commands:
        sent = subprocess.run(
            command, env=env | variables, capture_output=True, text=True, check=False
        )
        assert sent.returncode == 0, sent.stderr
        assert '{"status":"stored"}' in sent.stdout
    wait_until(
        lambda: sum(p.messages().count("webhook") for p in processing) == len(commands),
        doing=service,
    )


async def test_statements_of_the_webhooks_page_retry_empty_and_delete(empty_database: str) -> None:
    await migrate(settings_for(empty_database))
    retry, empty, delete = blocks("sql")
    async with open_database(settings_for(empty_database)) as database:
        async with database.session() as session:
            for source, number in itertools.product(("shop", "whatsapp"), range(2)):
                values = {"source": source, "id": str(number), "body": b"{}"}
                await fetch(session, STORE, values)
            await session.execute(
                text("UPDATE webhook_deliveries SET due_at = NULL, attempts = 10")
            )
            old = "UPDATE webhook_deliveries SET processed_at = now() - interval '31 days'"
            await session.execute(text(f"{old} WHERE id = '0'"))
            for statement in (empty, delete, retry):
                await session.execute(text(statement))
        columns = "source, id, attempts, due_at IS NOT NULL AS is_due, body"
        found = await fetch(
            database,
            text(f"SELECT {columns} FROM webhook_deliveries ORDER BY source, id"),  # noqa: S608 - constants only
        )
    assert [list(row.values()) for row in found] == [
        ["shop", "1", 0, True, b"{}"],
        ["whatsapp", "0", 10, False, b""],
        ["whatsapp", "1", 0, True, b"{}"],
    ]
