import pytest
from pydantic import SecretStr

from app.auth.settings import AuthSettings, parse_keys

SECRET = "Zq7wN1cT0pVxK4mB" + "8sRj2LdYhU6gEaFo"


def test_parsed_keys_keep_their_order() -> None:
    old_secret = SECRET[::-1]
    assert list(parse_keys(f"2026-11:{SECRET}, 2026-05:{old_secret}").items()) == [
        ("2026-11", SECRET),
        ("2026-05", old_secret),
    ]


def test_secret_with_colons_is_accepted() -> None:
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
def test_invalid_list_of_keys_is_refused_without_repeating_it(text: str, problem: str) -> None:
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
def test_missing_or_placeholder_key_is_insecure(keys: str | None, problem: str | None) -> None:
    settings = AuthSettings(auth_keys=None if keys is None else SecretStr(keys))
    problems = settings.insecure_values()
    assert len(problems) == (0 if problem is None else 1)
    assert (problem or "") in "".join(problems)
