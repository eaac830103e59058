"""Mails of a running service, with the worker if there is one."""

import asyncio
from contextlib import ExitStack

import httpx

from processes import MIGRATE_AND_SERVE, Service, environment
from smtp_server import open_smtp_server
from valkey_server import start_valkey  # option: redis


async def test_registration_sends_a_link_to_the_address(empty_database: str) -> None:
    account = {"email": "grace@navy.example", "password": "a nanosecond is 30 cm"}
    async with open_smtp_server() as server:
        with ExitStack() as stack:
            env = environment(empty_database, **server.variables)
            env["REDIS_URL"] = stack.enter_context(start_valkey()).url  # option: redis
            service = stack.enter_context(Service(MIGRATE_AND_SERVE, env))
            url = await asyncio.to_thread(service.wait_until_ready)
            stack.enter_context(Service(["app", "worker"], env))  # option: worker
            async with httpx.AsyncClient(base_url=url) as client:
                registered = await client.post("/accounts", json=account)
                assert registered.status_code == 201
                await server.wait_for(1)
    (mail,) = server.mails
    assert (mail["To"], mail["Subject"]) == (account["email"], "Confirm your e-mail address")
