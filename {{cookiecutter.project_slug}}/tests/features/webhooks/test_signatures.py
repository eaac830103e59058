import base64
import os
from typing import Any

import pytest
from pydantic import ValidationError

from app.features.webhooks.kinds import KINDS, TOLERANCE_SECONDS, SignatureHeaders
from app.features.webhooks.settings import Source, parse_secrets
from conftest import settings_for

# The example in the tests of the Standard Webhooks libraries.
KEY = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
EXAMPLE = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
OTHER_KEY = bytes(range(32))


def is_signed(
    keys: list[bytes], delivery_id: str, timestamp: str, body: bytes, signatures: str
) -> bool:
    headers = SignatureHeaders(
        webhook_id=delivery_id, webhook_timestamp=timestamp, webhook_signature=signatures
    )
    return KINDS["standard"].is_signed(keys, headers, body)


def refusal(delivery_id: str, timestamp: str, now: float) -> str | None:
    headers = SignatureHeaders(webhook_id=delivery_id, webhook_timestamp=timestamp)
    return KINDS["standard"].refusal(headers, now)


def test_signature_of_the_standards_example_is_accepted() -> None:
    assert is_signed([KEY], *EXAMPLE, SIGNATURE)


def test_one_matching_key_and_signature_is_enough() -> None:
    assert is_signed([OTHER_KEY, KEY], *EXAMPLE, SIGNATURE)
    assert is_signed([KEY], *EXAMPLE, f"v1a,abc v1,xyz {SIGNATURE} v2,")
    assert not is_signed([OTHER_KEY], *EXAMPLE, SIGNATURE)
    assert not is_signed([], *EXAMPLE, SIGNATURE)


@pytest.mark.parametrize(
    ("delivery_id", "timestamp", "body"),
    [
        ("msg_other", EXAMPLE[1], EXAMPLE[2]),
        (EXAMPLE[0], "1614265331", EXAMPLE[2]),
        (EXAMPLE[0], EXAMPLE[1], b'{"test": 2432232315}'),
        (EXAMPLE[0], EXAMPLE[1], b'{"test":2432232314}'),
    ],
)
def test_signature_of_another_id_timestamp_or_body_is_refused(
    delivery_id: str, timestamp: str, body: bytes
) -> None:
    assert not is_signed([KEY], delivery_id, timestamp, body, SIGNATURE)


@pytest.mark.parametrize(
    "signatures",
    ["", "v1,", "v1", SIGNATURE.removeprefix("v1,"), SIGNATURE.replace("v1,", "v2,"), "v1,é ÿ"],
)
def test_signature_of_another_version_or_form_is_refused(signatures: str) -> None:
    assert not is_signed([KEY], *EXAMPLE, signatures)


@pytest.mark.parametrize(
    ("delivery_id", "timestamp"),
    [
        ("", "1"),
        ("a.1", "1"),
        ("a b", "1"),
        ("ä", "1"),
        ("x" * 201, "1"),
        ("a", ""),
        ("a", "-1"),
        ("a", "1.5"),
        ("a", "1" * 13),
        ("a", "٣"),
    ],
)
def test_malformed_id_or_timestamp_is_refused(delivery_id: str, timestamp: str) -> None:
    detail = refusal(delivery_id, timestamp, now=1)
    assert detail is not None
    assert detail.startswith("Send webhook-id")


def test_timestamp_within_five_minutes_is_fresh() -> None:
    assert TOLERANCE_SECONDS == 300
    for near in (700, 1000, 1300):
        assert refusal("a", str(near), 1000) is None
    for far in (699, 1301):
        detail = refusal("a", str(far), 1000)
        assert detail is not None
        assert detail.startswith("The timestamp")


def secret_of(key: bytes) -> str:
    return f"whsec_{base64.b64encode(key).decode()}"


def test_source_has_all_of_its_keys() -> None:
    keys = [os.urandom(length) for length in (24, 25, 26)]
    text = ",".join(f"{source}:{secret_of(key)}" for source, key in zip("aab", keys, strict=True))
    expected = {"a": Source("standard", keys[:2]), "b": Source("standard", keys[2:])}
    assert parse_secrets(text) == expected
    assert parse_secrets(text.replace("=", "")) == expected


@pytest.mark.parametrize("length", [24, 25, 26, 32, 63, 64])
def test_secret_of_an_allowed_length_is_accepted(database_url: str, length: int) -> None:
    text = f"my-shop:{secret_of(os.urandom(length))}"
    settings = settings_for(database_url, webhook_secrets=f"{text},{text}")
    assert settings.webhook_secrets is not None
    assert settings.webhook_secrets.get_secret_value() == f"{text},{text}"
    assert text not in repr(settings)


@pytest.mark.parametrize(
    "text",
    [
        "shop",
        secret_of(OTHER_KEY),
        f"shop:{secret_of(OTHER_KEY)[6:]}",
        f"shop:{secret_of(bytes(23))}",
        f"Shop:{secret_of(OTHER_KEY)}",
        f"shop:{secret_of(OTHER_KEY)};bank:{secret_of(OTHER_KEY)}",
        "shop:whsec_" + "A" * 33,
        "shop:whsec_" + "-" * 32,
    ],
    ids=["no secret", "no source", "no prefix", "short", "capital", "semicolon", "odd", "alphabet"],
)
def test_malformed_secret_is_refused_without_repeating_it(database_url: str, text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings_for(database_url, webhook_secrets=text)
    (problem,) = caught.value.errors()
    assert problem["loc"] == ("webhook_secrets",)
    assert text not in str(caught.value)


def test_short_verify_token_is_refused(database_url: str) -> None:
    short: dict[str, Any] = {"webhook_verify_token": "short"}
    with pytest.raises(ValidationError, match="webhook_verify_token"):
        settings_for(database_url, **short)
