"""An application with cached words, for the tests of the cache."""

from typing import Annotated

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import select

from app.cache.read_through import Cache
from app.errors import Conflict
from app.main import create_app
from app.settings import Settings
from app.web.dependencies import Session, from_state


class Word(BaseModel):
    text: str


CacheDep = Annotated[Cache, from_state("cache")]


def app_with_words(settings: Settings) -> FastAPI:
    """Return the service with routes that read and change cached words, and count the loads."""
    app = create_app(settings)
    words: dict[str, str] = {}
    app.state.loads = 0

    @app.get("/_test/words/{name}")
    async def find(name: str, cache: CacheDep) -> Word:
        async def load() -> Word:
            app.state.loads += 1
            return Word(text=words.get(name, "none yet"))

        return await cache.get_or_load(f"_test:word:{name}", Word, load)

    @app.put("/_test/words/{name}")
    async def change(name: str, text: str, session: Session, cache: CacheDep) -> None:
        cache.invalidate_on_commit(session, f"_test:word:{name}")
        await session.execute(select(1))
        words[name] = text
        if text == "refused":
            raise Conflict

    return app


def set_generous_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a working Redis time to answer on a busy machine."""
    for limit in ("WAIT_SECONDS", "LATE_SECONDS", "POOL_WAIT_SECONDS"):
        monkeypatch.setattr(f"app.cache.circuit_breaker.{limit}", 20)
