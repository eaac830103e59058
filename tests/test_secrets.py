"""Files of a bake contain no secrets. Examples that look like secrets are listed here."""

import math
import re
from collections import Counter

import pytest
from conftest import Bake
from test_docs import BAKES

# In a URL, such as postgresql://user:password@host. $ and { begin a variable.
PASSWORD = re.compile(r"://[\w.-]*:([^@\s\"'`/{}$]+)@")
# Keys and tokens: random characters that are not part of a path.
TOKEN = re.compile(r"(?<![\w/+.-])[A-Za-z0-9+_-]{20,}={0,2}(?![\w/])")
KNOWN_FORMATS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_\w{36}|\bglpat-[\w-]{20}|"
    r"\b[sr]k_live_|\bxox[abpr]-|\bey[JA][\w-]{20,}\.[\w-]{20,}\."
)
RANDOM_BITS = 3.8  # entropy per character; words have less

EXAMPLES = {
    "p": "in tests that parse URLs",
    "hunter2": "in tests of redaction",
    "password": "a placeholder that is refused, and an example in the docs",
    "changeme": "a placeholder that is refused",
    "p%40ss": "in tests that parse URLs",
    "development": "of the database in compose.yaml, which is published on localhost at most",
    "test": "of a temporary database",
    "f8Zk2q": "in examples of URLs",
    "Zq7wN1cT0pVxK4mB8sRj2LdYhU6gEaFo": "in tests of the settings",
    "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw": "in the specification of Standard Webhooks",
    "msg_p5jXN8AQM9LWM0D4loKWxJek": "in the specification of Standard Webhooks",
}


def bits_of_a_character(text: str) -> float:
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


def is_random(text: str) -> bool:
    kinds = ("[a-z]", "[A-Z]", "[0-9]")
    return all(re.search(k, text) for k in kinds) and bits_of_a_character(text) > RANDOM_BITS


def secrets_in(text: str) -> set[str]:
    tokens = {token for token in TOKEN.findall(text) if is_random(token)}
    return tokens | set(PASSWORD.findall(text)) | set(KNOWN_FORMATS.findall(text))


@pytest.mark.parametrize("answers", BAKES.values(), ids=BAKES)
def test_files_of_a_bake_have_only_known_example_secrets(
    bake: Bake, answers: dict[str, object]
) -> None:
    for path, content in bake(**answers).files().items():
        found = secrets_in(content.decode()) - set(EXAMPLES)
        assert not found, f"{path}: {found}"


def test_every_example_secret_is_still_used(bake: Bake) -> None:
    contents = (text for answers in BAKES.values() for text in bake(**answers).files().values())
    assert set().union(*(secrets_in(content.decode()) for content in contents)) == set(EXAMPLES)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://app:Tr0ub4dor@db/app",
        "redis://:Tr0ub4dor@cache:6379",
        "METRICS_TOKEN=B0jrphAPOY7pg92AN0c9MN4yecczLMdwnx4OkA1KFUk=",
        "AUTH_KEYS=first:kT4nSx9qWfJ2mZ7cLbR1vYpE8dHgAu5o",
        "-----BEGIN RSA PRIVATE KEY-----",
        "ghp_" + "a1B2" * 9,
    ],
)
def test_secret_is_found(text: str) -> None:
    assert secrets_in(f"{text}\n")
