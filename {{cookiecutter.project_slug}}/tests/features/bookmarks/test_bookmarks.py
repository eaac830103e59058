import asyncio
import base64
import json
import uuid
from typing import Any

import pytest
from httpx import AsyncClient

from app.errors import ServiceError
from app.features.bookmarks.errors import BookmarkChanged, BookmarkNotFound, DuplicateBookmark
from app.features.bookmarks.routes import UnknownVersion, VersionRequired
from conftest import is_problem

PROBLEM = "application/problem+json"
ID = "00000000-0000-0000-0000-000000000007"


async def create(client: AsyncClient, url: str, title: str = "A page") -> dict[str, Any]:
    response = await client.post("/bookmarks", json={"url": url, "title": title})
    assert response.status_code == 201, response.text
    bookmark: dict[str, Any] = response.json()
    return bookmark


async def test_bookmark_is_created_read_replaced_and_deleted(client: AsyncClient) -> None:
    created = await client.post("/bookmarks", json={"url": "https://a.example/x", "title": " A "})
    assert created.status_code == 201
    assert created.headers["ETag"] == '"1"'
    bookmark = created.json()
    assert (bookmark["url"], bookmark["title"]) == ("https://a.example/x", "A")
    location = created.headers["Location"]
    assert location == f"/bookmarks/{bookmark['id']}"

    found = await client.get(location)
    assert (found.json(), found.headers["ETag"]) == (bookmark, '"1"')

    head = await client.head(location)
    for name in ("ETag", "Content-Type", "Content-Length"):
        assert head.headers[name] == found.headers[name]

    new = {"url": "https://a.example/y", "title": "B"}
    changed = await client.put(location, json=new, headers={"If-Match": '"1"'})
    assert changed.status_code == 200
    assert changed.headers["ETag"] == '"2"'
    assert changed.json()["url"] == "https://a.example/y"
    assert changed.json()["updated_at"] > bookmark["updated_at"]
    assert (await client.get(location)).json() == changed.json()

    deleted = await client.delete(location, headers={"If-Match": '"2"'})
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert is_problem(await client.get(location), 404, "bookmark-not-found")


@pytest.mark.parametrize("again", ["https://a.example/x", "https://A.EXAMPLE/x#part"])
async def test_create_with_a_duplicate_url_returns_409(client: AsyncClient, again: str) -> None:
    await create(client, "https://a.example/x")
    response = await client.post("/bookmarks", json={"url": again, "title": "Again"})
    assert is_problem(response, 409, "duplicate-bookmark")
    assert len((await client.get("/bookmarks")).json()["items"]) == 1


async def test_replace_with_a_duplicate_url_returns_409(client: AsyncClient) -> None:
    await create(client, "https://a.example/x")
    other = await create(client, "https://a.example/y")
    response = await client.put(
        f"/bookmarks/{other['id']}",
        json={"url": "https://a.example/x", "title": "Taken"},
        headers={"If-Match": '"1"'},
    )
    assert is_problem(response, 409, "duplicate-bookmark")
    assert (await client.get(f"/bookmarks/{other['id']}")).json() == other


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(
    ("if_match", "status", "name"),
    [
        (None, 428, "version-required"),
        ('"7"', 412, "bookmark-changed"),
        ("nonsense", 412, "unknown-version"),
        ("*", 412, "unknown-version"),
        ('"1", "2"', 412, "unknown-version"),
        ('W/"1"', 412, "unknown-version"),
    ],
)
async def test_change_without_the_current_version_is_refused(
    client: AsyncClient, method: str, if_match: str | None, status: int, name: str
) -> None:
    bookmark = await create(client, "https://a.example/x")
    response = await client.request(
        method,
        f"/bookmarks/{bookmark['id']}",
        json={"url": "https://a.example/z", "title": "Z"} if method == "PUT" else None,
        headers={"If-Match": if_match} if if_match else {},
    )
    assert is_problem(response, status, name)
    assert (await client.get(f"/bookmarks/{bookmark['id']}")).json() == bookmark


async def test_concurrent_changes_of_a_bookmark_one_succeeds(client: AsyncClient) -> None:
    bookmark = await create(client, "https://a.example/x")
    location = f"/bookmarks/{bookmark['id']}"
    responses = await asyncio.gather(
        *(
            client.put(
                location, json={"url": bookmark["url"], "title": t}, headers={"If-Match": '"1"'}
            )
            for t in ("one", "two")
        )
    )
    assert sorted(r.status_code for r in responses) == [200, 412]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_unknown_bookmark_returns_404(client: AsyncClient, method: str) -> None:
    response = await client.request(
        method,
        f"/bookmarks/{uuid.uuid4()}",
        json={"url": "https://a.example/x", "title": "X"} if method == "PUT" else None,
        headers={"If-Match": '"1"'},
    )
    assert is_problem(response, 404, "bookmark-not-found")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": "https://a.example/x"},
        {"url": "ftp://a.example/x", "title": "X"},
        {"url": "https://a.example/" + "x" * 2000, "title": "X"},
        {"url": "https://a.example/x", "title": "  "},
        {"url": "https://a.example/x", "title": "x" * 201},
        {"url": "https://a.example/x", "title": "X", "colour": "red"},
        {"url": "https://a.example/x", "title": "nul \x00"},
    ],
)
async def test_invalid_bookmark_returns_422(client: AsyncClient, body: dict[str, str]) -> None:
    response = await client.post("/bookmarks", json=body)
    assert response.status_code == 422
    assert response.headers["Content-Type"] == PROBLEM


async def test_pages_are_stable_while_bookmarks_are_added(client: AsyncClient) -> None:
    urls = [f"https://a.example/{number}" for number in range(7)]
    for url in urls:
        await create(client, url)
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        page = (await client.get("/bookmarks", params={"limit": "3"} | _cursor(cursor))).json()
        seen += [item["url"] for item in page["items"]]
        await create(client, f"https://a.example/new/{len(seen)}")
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == urls[::-1]


def _cursor(cursor: str | None) -> dict[str, str]:
    return {"cursor": cursor} if cursor else {}


async def test_full_last_page_has_no_next_cursor(client: AsyncClient) -> None:
    for number in range(3):
        await create(client, f"https://a.example/{number}")
    page = (await client.get("/bookmarks", params={"limit": 3})).json()
    assert (len(page["items"]), page["next_cursor"]) == (3, None)


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode()


def cursor_of(value: str, sort: str = "-created_at") -> str:
    return encoded(json.dumps([sort, value, ID]).encode())


@pytest.mark.parametrize("cursor", ["nonsense", "eA", "%00", "MjAyNg== ", "é"])
async def test_invalid_cursor_returns_422(client: AsyncClient, cursor: str) -> None:
    response = await client.get("/bookmarks", params={"cursor": cursor})
    assert is_problem(response, 422, "invalid-cursor")


@pytest.mark.parametrize("sort", ["-created_at", "title"])
@pytest.mark.parametrize(
    "content",
    [
        *(b"nonsense", b"null", b"7", b"{}", b"[]", b"[" * 700, b"\xff"),
        *(b'["SORT", 7, "ID"]', b'["SORT", [], "ID"]', b'["SORT", {}, "ID"]'),
        *(b'["SORT", null, "ID"]', b'["SORT", true, "ID"]', b'["SORT", [7], "ID"]'),
        *(b'["SORT", "\\u0000", "ID"]', b'["SORT", "\\ud800", "ID"]'),
        b'["SORT", "\xed\xa0\x80", "ID"]',
        *(b'["SORT", "2026-01-01", 7]', b'["SORT", "2026-01-01", "7"]'),
        *(b'["SORT", "2026-01-01"]', b'["SORT", "2026-01-01", "ID", "ID"]'),
        *(b'[[], "2026-01-01", "ID"]', b'{"sort": "SORT", "value": "2026-01-01", "id": "ID"}'),
    ],
)
async def test_forged_cursor_returns_422(client: AsyncClient, content: bytes, sort: str) -> None:
    content = content.replace(b"SORT", sort.encode()).replace(b'"ID"', f'"{ID}"'.encode())
    query = {"sort": sort, "cursor": encoded(content)}
    response = await client.get("/bookmarks", params=query)
    assert is_problem(response, 422, "invalid-cursor")
    assert response.json()["detail"] == "Send the `next_cursor` of an earlier page, unchanged."


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "yesterday", ""]
)
async def test_cursor_with_an_invalid_time_returns_422(client: AsyncClient, time: str) -> None:
    response = await client.get("/bookmarks", params={"cursor": cursor_of(time)})
    assert is_problem(response, 422, "invalid-cursor")


@pytest.mark.parametrize("sort", ["-created_at", "url"])
async def test_cursor_of_a_list_with_another_sort_returns_422(
    client: AsyncClient, sort: str
) -> None:
    query = {"sort": "title", "cursor": cursor_of("2026-01-01", sort)}
    response = await client.get("/bookmarks", params=query)
    assert is_problem(response, 422, "invalid-cursor")
    assert response.json()["detail"] == "The cursor belongs to a list with another `sort`."


@pytest.mark.parametrize("letter", ["é", "\U0001f600", '"', "\x7f"])
async def test_cursor_of_the_longest_title_is_accepted(client: AsyncClient, letter: str) -> None:
    for number in range(2):
        await create(client, f"https://a.example/{number}", letter * 200)
    query = {"sort": "title", "limit": "1"}
    first = (await client.get("/bookmarks", params=query)).json()
    second = await client.get("/bookmarks", params=query | {"cursor": first["next_cursor"]})
    assert second.status_code == 200
    assert second.json()["items"] != first["items"]


async def test_openapi_document_describes_every_refusal_of_a_change(client: AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    for method in ("put", "delete"):
        operation = document["paths"]["/bookmarks/{bookmark_id}"][method]
        assert operation["responses"].keys() >= {"404", "412", "428"}
        described = operation["responses"]["412"]["description"]
        assert described == "Bookmark Changed or Unknown Version"
        (header,) = [p for p in operation["parameters"] if p["in"] == "header"]
        assert (header["name"], header["required"]) == ("If-Match", True)


@pytest.mark.parametrize("limit", [0, 1001, "many"])
async def test_page_limit_out_of_range_returns_422(client: AsyncClient, limit: object) -> None:
    assert (await client.get("/bookmarks", params={"limit": str(limit)})).status_code == 422


def test_types_and_titles_of_errors_are_stable() -> None:
    kinds: list[type[ServiceError]] = [
        BookmarkNotFound,
        DuplicateBookmark,
        BookmarkChanged,
        VersionRequired,
        UnknownVersion,
    ]
    assert {kind.type: kind.title for kind in kinds} == {
        "urn:problem:bookmark-not-found": "Bookmark Not Found",
        "urn:problem:duplicate-bookmark": "Duplicate Bookmark",
        "urn:problem:bookmark-changed": "Bookmark Changed",
        "urn:problem:version-required": "Version Required",
        "urn:problem:unknown-version": "Unknown Version",
    }
