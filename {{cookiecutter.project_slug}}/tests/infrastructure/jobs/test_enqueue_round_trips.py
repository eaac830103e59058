"""Exact round trips of a request that enqueues a job."""

import pytest
from httpx import AsyncClient
from sqlalchemy import text

from app.jobs.backend import BACKENDS
from app.jobs.cleanup import delete_old_jobs
from app.jobs.enqueue import enqueue
from app.main import create_app
from app.web.dependencies import Session
from conftest import running, settings_for
from counting_proxy import CountingProxy, open_counting_proxy


async def cost(proxy: CountingProxy, client: AsyncClient, query: str) -> int:
    for _ in range(2):  # the first request prepares the statements
        proxy.round_trips = 0
        assert (await client.post(f"/_test/jobs{query}")).status_code == 200
    return proxy.round_trips


@pytest.mark.usefixtures("clean_tables")
@pytest.mark.parametrize("backend", BACKENDS)
async def test_enqueue_adds_one_round_trip_to_a_request(
    database_url: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.backend.BACKENDS", [backend])
    async with open_counting_proxy(database_url) as (proxy, url):
        app = create_app(settings_for(url))

        @app.post("/_test/jobs")
        async def create(session: Session, jobs: int = 0, key: str | None = None) -> None:
            await session.execute(text("SELECT 1"))
            for _ in range(jobs):
                await enqueue(session, delete_old_jobs, key=key)

        async with running(app) as client:
            costs = [await cost(proxy, client, query) for query in ("", "?jobs=1", "?jobs=1&key=a")]
    assert costs == [3, 4, 4]  # BEGIN, SELECT and COMMIT; with the job; with the key of another job
