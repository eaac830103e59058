import pytest
from httpx import AsyncClient
from pydantic_core import PydanticCustomError

from app.features.accounts.common_passwords import LIST, refuse_common_password

COMMON = [
    "passwordpassword",
    "PassWord1passWord1",
    "123456789123456789",
    "x" * 15,
    "".join(chr(ord(digit) + 0xFEE0) for digit in "123456" * 3),  # full-width digits
]
OTHERS = ["a nanosecond is 30 cm", "password and more", "y" * 14 + "z", "qwertyuiop[]asdf"]


@pytest.mark.parametrize("password", COMMON)
@pytest.mark.parametrize("field", ["password", "new_password"])
async def test_common_password_returns_422_with_the_field(
    anonymous_client: AsyncClient, password: str, field: str
) -> None:
    if field == "password":
        new = {"email": "grace@navy.example", "password": password}
        refused = await anonymous_client.post("/accounts", json=new)
    else:
        account = {"email": "grace@navy.example", "password": OTHERS[0]}
        await anonymous_client.post("/accounts", json=account)
        form = {"username": "grace@navy.example", "password": OTHERS[0]}
        tokens = (await anonymous_client.post("/accounts/login", data=form)).json()
        refused = await anonymous_client.post(
            "/accounts/me/password",
            json={"current_password": OTHERS[0], "new_password": password},
            headers={"Authorization": f"Bearer {tokens['access_token']}"},
        )
    assert refused.status_code == 422
    assert refused.json()["errors"] == [
        {
            "location": f"body.{field}",
            "message": "This is one of the most common passwords: choose another one",
            "type": "common_password",
        }
    ]


@pytest.mark.parametrize("password", OTHERS)
def test_other_password_is_accepted(password: str) -> None:
    assert refuse_common_password(password) == password


def test_every_listed_password_is_refused() -> None:
    listed = [line for line in LIST.read_text().splitlines() if not line.startswith("#")]
    assert len(listed) > 3000
    for password in listed:
        with pytest.raises(PydanticCustomError):
            refuse_common_password(password.upper())
