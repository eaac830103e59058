"""Tags, filters, sorting and pages of bookmarks."""

import pytest
from httpx import AsyncClient

BOOKMARKS = [  # url, title, tags
    ("https://a.example/1", "Learning SQL", ["sql", "book"]),
    ("https://a.example/2", "Asyncio", ["python"]),
    ("https://a.example/3", "100% coverage", ["python", "testing"]),
    ("https://a.example/4", "Asyncio", []),
    ("https://a.example/5", "sql for Python", ["python", "sql"]),
]


@pytest.fixture
async def bookmarks(client: AsyncClient) -> AsyncClient:
    for url, title, tags in BOOKMARKS:
        response = await client.post("/bookmarks", json={"url": url, "title": title, "tags": tags})
        assert response.status_code == 201, response.text
    return client


async def list_numbers(client: AsyncClient, **parameters: object) -> list[str]:
    """Read every page of two bookmarks, and return the numbers in their URLs in order."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        query = {key: str(value) for key, value in parameters.items()} | {"limit": "2"} | cursor
        response = await client.get("/bookmarks", params=query)
        assert response.status_code == 200, response.text
        page = response.json()
        found += [item["url"].rpartition("/")[2] for item in page["items"]]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


async def test_duplicate_tags_are_stored_once_in_lower_case_and_sorted(client: AsyncClient) -> None:
    new = {"url": "https://a.example/x", "title": "A", "tags": ["Web", "api", "web "]}
    created = (await client.post("/bookmarks", json=new)).json()
    assert created["tags"] == ["api", "web"]
    assert (await client.get(f"/bookmarks/{created['id']}")).json() == created
    assert (await client.get("/bookmarks")).json()["items"] == [created]


async def test_change_of_the_tags_alone_changes_the_version(client: AsyncClient) -> None:
    new = {"url": "https://a.example/x", "title": "A", "tags": ["old"]}
    location = (await client.post("/bookmarks", json=new)).headers["Location"]
    version = {"If-Match": '"1"'}
    replaced = await client.put(location, json=new | {"tags": ["new"]}, headers=version)
    assert replaced.headers["ETag"] == '"2"'
    stale = await client.put(location, json=new | {"tags": ["other"]}, headers=version)
    assert stale.status_code == 412


async def test_replaced_bookmark_has_its_new_tags(client: AsyncClient) -> None:
    new = {"url": "https://a.example/x", "title": "A", "tags": ["old", "kept"]}
    location = (await client.post("/bookmarks", json=new)).headers["Location"]
    changed = new | {"tags": ["kept", "new"]}
    replaced = await client.put(location, json=changed, headers={"If-Match": '"1"'})
    assert replaced.json()["tags"] == ["kept", "new"]
    assert (await client.get(location)).json() == replaced.json()
    removed = await client.put(location, json=new | {"tags": []}, headers={"If-Match": '"2"'})
    assert removed.json()["tags"] == []
    assert await list_numbers(client, tag="kept") == []


@pytest.mark.parametrize("tags", [["a b"], ["-a"], ["x" * 51], ["a"] * 21, [""], ["\u0000"]])
async def test_invalid_tags_return_422(client: AsyncClient, tags: list[str]) -> None:
    new = {"url": "https://a.example/x", "title": "A", "tags": tags}
    assert (await client.post("/bookmarks", json=new)).status_code == 422


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"tag": "python"}, "532"),
        ({"tag": "PYTHON"}, "532"),
        ({"tag": "unknown"}, ""),
        ({"text": "SQL"}, "51"),
        ({"text": "%"}, "3"),
        ({"text": "_"}, ""),
        ({"text": "sql", "tag": "python"}, "5"),
        ({"text": "asyncio", "tag": "python", "sort": "title"}, "2"),
    ],
)
async def test_list_is_filtered_by_tag_and_text(
    bookmarks: AsyncClient, query: dict[str, str], expected: str
) -> None:
    assert await list_numbers(bookmarks, **query) == list(expected)


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "title", "-title"])
async def test_pages_follow_the_sort_and_show_each_bookmark_once(
    bookmarks: AsyncClient, sort: str
) -> None:
    complete = (await bookmarks.get("/bookmarks", params={"sort": sort})).json()["items"]
    expected = [item["url"].rpartition("/")[2] for item in complete]
    assert sorted(expected) == list("12345")
    assert await list_numbers(bookmarks, sort=sort) == expected
    values = [item[sort.removeprefix("-")] for item in complete]
    if sort.endswith("created_at"):
        assert values == sorted(values, reverse=sort.startswith("-"))
    else:  # the collation of the database decides the order, but equal titles are neighbours
        assert abs(values.index("Asyncio") - (4 - values[::-1].index("Asyncio"))) == 1


async def test_descending_titles_are_the_reverse_of_ascending_titles(
    bookmarks: AsyncClient,
) -> None:
    ascending = await list_numbers(bookmarks, sort="title")
    assert await list_numbers(bookmarks, sort="-title") == ascending[::-1]


@pytest.mark.parametrize("sort", ["title", "-title"])
async def test_pages_by_title_are_stable_while_bookmarks_are_added(
    bookmarks: AsyncClient, sort: str
) -> None:
    expected = await list_numbers(bookmarks, sort=sort)
    first = (await bookmarks.get("/bookmarks", params={"sort": sort, "limit": 3})).json()
    first_title = "\u0021" if sort == "title" else "zzz"
    new = {"url": "https://a.example/6", "title": first_title, "tags": []}
    assert (await bookmarks.post("/bookmarks", json=new)).status_code == 201
    query = {"sort": sort, "limit": 3, "cursor": first["next_cursor"]}
    second = (await bookmarks.get("/bookmarks", params=query)).json()
    shown = [item["url"].rpartition("/")[2] for item in first["items"] + second["items"]]
    assert shown == expected


@pytest.mark.parametrize(
    "query", [{"sort": "url"}, {"colour": "red"}, {"text": ""}, {"tag": "a b"}]
)
async def test_invalid_query_returns_422(client: AsyncClient, query: dict[str, str]) -> None:
    assert (await client.get("/bookmarks", params=query)).status_code == 422
