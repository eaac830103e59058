"""The keys of the provider: rotation, outage, and the number of requests."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from httpx import MockTransport, Request, Response

from app.auth.errors import PAUSE_SECONDS, ProviderUnavailable
from app.auth.provider_keys import MAX_AGE_SECONDS, ProviderKeys
from app.auth.provider_keys import UnknownKey as Unknown
from app.http_client import open_http_client
from oidc_provider import DISCOVERY, JWKS, Provider, SigningKey

ISSUER = "https://login.example.com"


class Clock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.stop()


@pytest.fixture
async def keys(provider: Provider, clock: Clock) -> AsyncIterator[ProviderKeys]:
    async with open_http_client() as client:
        keys = ProviderKeys(provider.issuer, client, timeout_seconds=60, clock=clock)
        yield keys
        await keys.close()


async def test_keys_are_fetched_when_the_first_token_needs_them(
    provider: Provider, keys: ProviderKeys
) -> None:
    assert provider.requests == {}
    for _ in range(3):
        assert (await keys.find("key-1")).key_id == "key-1"
    assert provider.requests == {DISCOVERY: 1, JWKS: 1}


async def test_unknown_keys_share_one_fetch_in_each_pause(
    provider: Provider, keys: ProviderKeys, clock: Clock
) -> None:
    for number in (1, 2):
        unknown = (keys.find(f"forged-{n}") for n in range(50))
        found = await asyncio.gather(*unknown, return_exceptions=True)
        assert {type(error) for error in found} == {Unknown}
        with pytest.raises(Unknown):
            await keys.find("forged")
        assert provider.requests[JWKS] == number
        clock.now += PAUSE_SECONDS


async def test_new_key_is_found_and_a_removed_one_is_refused(
    provider: Provider, keys: ProviderKeys, clock: Clock
) -> None:
    await keys.find("key-1")
    provider.rotate(keep=True)
    clock.now += PAUSE_SECONDS
    assert (await keys.find("key-2")).key_id == "key-2"
    assert (await keys.find("key-1")).key_id == "key-1"
    provider.rotate()
    clock.now += MAX_AGE_SECONDS
    assert (await keys.find("key-1")).key_id == "key-1"  # this request does not wait
    assert (await keys.find("key-3")).key_id == "key-3"
    assert provider.requests[JWKS] == 3
    for removed in ("key-1", "key-2"):
        with pytest.raises(Unknown):
            await keys.find(removed)


async def test_known_keys_work_during_an_outage_and_unknown_ones_are_unavailable(
    provider: Provider, keys: ProviderKeys, clock: Clock
) -> None:
    await keys.find("key-1")
    provider.stop()
    provider.rotate(keep=True)
    clock.now += MAX_AGE_SECONDS
    assert (await keys.find("key-1")).key_id == "key-1"
    for _ in range(2):
        with pytest.raises(ProviderUnavailable) as caught:
            await keys.find("key-2")
        assert caught.value.retry_after_seconds == PAUSE_SECONDS
    provider.start()
    with pytest.raises(ProviderUnavailable):  # until the pause ends
        await keys.find("key-2")
    clock.now += PAUSE_SECONDS
    assert (await keys.find("key-2")).key_id == "key-2"
    assert (await keys.find("key-1")).key_id == "key-1"


async def test_outage_of_a_known_key_is_tried_once_in_each_pause(
    provider: Provider, keys: ProviderKeys, clock: Clock
) -> None:
    await keys.find("key-1")
    provider.documents[DISCOVERY] = None  # 404
    clock.now += MAX_AGE_SECONDS
    for number in (2, 3):
        for _ in range(20):
            await keys.find("key-1")
        with pytest.raises(ProviderUnavailable):
            await keys.find("unknown")  # waits for the fetch
        await keys.find("key-1")
        assert provider.requests[DISCOVERY] == number
        clock.now += PAUSE_SECONDS


async def test_cancelled_request_leaves_the_fetch_to_the_others() -> None:
    arrived, may_respond = asyncio.Event(), asyncio.Event()

    async def respond(request: Request) -> Response:
        arrived.set()
        await may_respond.wait()
        return document_of_a_provider(request)

    async with open_http_client(transport=MockTransport(respond)) as client:
        keys = ProviderKeys(ISSUER, client)
        first = asyncio.create_task(keys.find(KEY.key_id))
        await arrived.wait()
        second = asyncio.create_task(keys.find(KEY.key_id))
        await asyncio.sleep(0)
        first.cancel()
        may_respond.set()
        assert (await second).key_id == KEY.key_id
        assert first.cancelled()


async def test_provider_that_does_not_respond_is_unavailable_after_the_timeout() -> None:
    async def never_respond(_request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with open_http_client(transport=MockTransport(never_respond)) as client:
        keys = ProviderKeys(ISSUER, client, timeout_seconds=0.01)
        with pytest.raises(ProviderUnavailable):
            await keys.find("key-1")


async def test_close_ends_a_running_fetch() -> None:
    arrived = asyncio.Event()

    async def never_respond(_request: Request) -> Response:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with open_http_client(transport=MockTransport(never_respond)) as client:
        keys = ProviderKeys(ISSUER, client)
        request = asyncio.create_task(keys.find("key-1"))
        await arrived.wait()
        await keys.close()
        with pytest.raises(asyncio.CancelledError):
            await request


@pytest.mark.parametrize(
    ("issuer", "accepts", "is_found"),
    [
        (f"{ISSUER}/", True, True),
        (ISSUER, True, True),
        (f"{ISSUER}//", True, False),
        (f"{ISSUER}/", False, False),
    ],
)
async def test_issuer_with_a_final_slash_is_accepted_only_if_wanted(
    issuer: str, *, accepts: bool, is_found: bool
) -> None:
    async def respond(request: Request) -> Response:
        return document_of_a_provider(request, {**DOCUMENT, "issuer": issuer})

    async with open_http_client(transport=MockTransport(respond)) as client:
        keys = ProviderKeys(ISSUER, client, accepts_final_slash=accepts)
        if is_found:
            assert (await keys.find_document())["issuer"] == issuer
        else:
            with pytest.raises(ProviderUnavailable):
                await keys.find_document()


async def test_document_is_fetched_once_and_stays_in_use_during_an_outage(
    provider: Provider, keys: ProviderKeys, clock: Clock
) -> None:
    for _ in range(3):
        assert (await keys.find_document())["issuer"] == provider.issuer
    assert provider.requests[DISCOVERY] == 1
    provider.stop()
    clock.now += MAX_AGE_SECONDS
    assert (await keys.find_document())["issuer"] == provider.issuer
    provider.start()


KEY = SigningKey("key-1")
SECRET = {"kty": "oct", "k": "c2Vj" * 11, "kid": "key-1"}
DOCUMENT = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}


def document_of_a_provider(
    request: Request, document: Any = DOCUMENT, keys: Any = (KEY.public,)
) -> Response:
    is_discovery = request.url.path == DISCOVERY
    return Response(200, json=document if is_discovery else {"keys": list(keys)})


@pytest.mark.parametrize(
    ("document", "published"),
    [
        ({**DOCUMENT, "issuer": "https://evil.example.com"}, [KEY.public]),
        ({**DOCUMENT, "issuer": f"{ISSUER}/"}, [KEY.public]),
        ({**DOCUMENT, "jwks_uri": "http://login.example.com/keys"}, [KEY.public]),
        ({"issuer": ISSUER}, [KEY.public]),
        ([DOCUMENT], [KEY.public]),
        (DOCUMENT, []),
        (DOCUMENT, [SECRET]),
        (DOCUMENT, [{**KEY.public, "use": "enc"}]),
        (DOCUMENT, [{**KEY.public, "kid": ""}]),
        (DOCUMENT, [{**KEY.public, "alg": "HS256"}]),
        (DOCUMENT, ["no key"]),
    ],
)
async def test_unusable_documents_make_the_provider_unavailable(
    document: Any, published: list[Any]
) -> None:
    async def respond(request: Request) -> Response:
        return document_of_a_provider(request, document, published)

    async with open_http_client(transport=MockTransport(respond)) as client:
        with pytest.raises(ProviderUnavailable):
            await ProviderKeys(ISSUER, client).find("key-1")


@pytest.mark.parametrize(
    "response", [Response(500), Response(302, headers={"Location": "/"}), Response(200, text="<")]
)
async def test_unsuccessful_responses_make_the_provider_unavailable(response: Response) -> None:
    async with open_http_client(transport=MockTransport(lambda _: response)) as client:
        with pytest.raises(ProviderUnavailable):
            await ProviderKeys(ISSUER, client).find("key-1")


async def test_secret_beside_a_public_key_is_ignored() -> None:
    async def respond(request: Request) -> Response:
        return document_of_a_provider(request, keys=[{**SECRET, "kid": "secret"}, KEY.public])

    async with open_http_client(transport=MockTransport(respond)) as client:
        keys = ProviderKeys(ISSUER, client)
        assert (await keys.find("key-1")).key_id == "key-1"
        with pytest.raises(Unknown):
            await keys.find("secret")


async def test_service_without_an_issuer_is_unavailable() -> None:
    async with httpx.AsyncClient() as client:
        with pytest.raises(ProviderUnavailable):
            await ProviderKeys(None, client).find("key-1")
