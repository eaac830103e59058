"""Use the client that openapi-python-client generated."""

import sys
from uuid import UUID

from client import AuthenticatedClient, Client
from client.api.accounts import grant_tokens, register_account
from client.api.bookmarks import (
    create_bookmark,
    delete_bookmark,
    list_bookmarks,
    read_bookmark,
    replace_bookmark,
)
from client.api.health import read_health_details
from client.models import (
    BookmarkInput,
    BookmarkPage,
    BookmarkRead,
    Details,
    Problem,
    Registration,
    TokenForm,
    Tokens,
)

EMAIL, PASSWORD = "python@example.com", "of-this-test-alone"


def log_in_as_new_account(url: str) -> AuthenticatedClient:
    anonymous = Client(url)
    register_account.sync(client=anonymous, body=Registration(EMAIL, PASSWORD))
    tokens = grant_tokens.sync(client=anonymous, body=TokenForm(username=EMAIL, password=PASSWORD))
    assert isinstance(tokens, Tokens)
    return AuthenticatedClient(url, tokens.access_token)


def create(client: AuthenticatedClient, name: str) -> BookmarkRead:
    new = BookmarkInput(url=f"https://{name}.example/python", title=name)
    created = create_bookmark.sync(client=client, body=new)
    assert isinstance(created, BookmarkRead)
    return created


def page_through(client: AuthenticatedClient) -> list[UUID]:
    ids, cursor = [], None
    while True:
        page = list_bookmarks.sync(client=client, limit=1, cursor=cursor)
        assert isinstance(page, BookmarkPage)
        ids += [item.id for item in page.items]
        if page.next_cursor is None:
            return ids
        cursor = page.next_cursor


def replace(
    client: AuthenticatedClient, bookmark: BookmarkRead, etag: str
) -> BookmarkRead | Problem:
    new = BookmarkInput(bookmark.url, "changed")
    answer = replace_bookmark.sync(bookmark.id, client=client, body=new, if_match=etag)
    assert answer is not None
    return answer


def without_precondition(client: AuthenticatedClient, bookmark: BookmarkRead) -> None:
    """Calls that mypy must refuse: it reports an ignored error that does not occur."""
    new = BookmarkInput(bookmark.url, "changed")
    replace_bookmark.sync(bookmark.id, client=client, body=new)  # type: ignore[call-arg]  # lacks if_match
    delete_bookmark.sync(bookmark.id, client=client)  # type: ignore[call-arg]  # lacks if_match


def main(url: str) -> None:
    assert isinstance(read_health_details.sync(client=AuthenticatedClient(url, "any")), Details)
    client = log_in_as_new_account(url)
    first, second = create(client, "first"), create(client, "second")
    assert page_through(client)[:2] == [second.id, first.id]

    read = read_bookmark.sync_detailed(first.id, client=client)
    assert isinstance(read.parsed, BookmarkRead)
    etag = read.headers["etag"]
    replaced = replace(client, first, etag)
    assert isinstance(replaced, BookmarkRead)
    assert (replaced.title, replaced.version) == ("changed", 2)
    refused = replace(client, first, etag)
    assert isinstance(refused, Problem)
    assert (refused.status, refused.type_) == (412, "urn:problem:bookmark-changed")

    deleted = delete_bookmark.sync_detailed(first.id, client=client, if_match='"2"')
    assert deleted.status_code == 204
    missing = read_bookmark.sync(first.id, client=client)
    assert isinstance(missing, Problem)
    assert missing.status == 404


if __name__ == "__main__":
    main(sys.argv[1])
