import pytest
from pydantic import SecretStr

from app.auth.settings import AuthSettings, parse_keys

SECRET = "Zq7wN1cT0pVxK4mB" + "8sRj2LdYhU6gEaFo"


def test_the_first_key_comes_first() -> None:
    other = SECRET[::-1]
    assert list(parse_keys(f"2026-11:{SECRET}, 2026-05:{other}").items()) == [
        ("2026-11", SECRET),
        ("2026-05", other),
    ]


def test_a_secret_may_have_colons() -> None:
    assert parse_keys(f"new:{SECRET}:x") == {"new": f"{SECRET}:x"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SECRET, "must be name:secret"),
        (f":{SECRET}", "must be name:secret"),
        (f"new:{SECRET},", "must be name:secret"),
        (f"new:{SECRET[:16]} {SECRET[16:]}", "must be name:secret"),
        (f"{'n' * 33}:{SECRET}", "must be name:secret"),
        (f"new:{SECRET},new:{SECRET}x", "two keys have the name new"),
        (f"new:{SECRET[:31]}", "at least 32"),
        (f"new:{SECRET},old:{SECRET[:31]}", "at least 32"),
    ],
)
def test_what_is_no_list_of_keys_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse_keys(text)
    assert SECRET[:16] not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (None, "AUTH_KEYS is missing"),
        (f"new:{SECRET},old:please-change-me-{SECRET}", "placeholder"),
        ("new:development-development-development", "placeholder"),
        (f"new:{'0123456' * 7}", "placeholder"),
        (f"new:{SECRET}", None),
        ("new:0f8a6c31d97be24508fa1c63b9d7e250", None),
    ],
)
def test_keys_that_are_no_secret_are_told_apart(keys: str | None, problem: str | None) -> None:
    found = AuthSettings(auth_keys=None if keys is None else SecretStr(keys)).insecure_values()
    assert len(found) == (0 if problem is None else 1)
    assert (problem or "") in "".join(found)
