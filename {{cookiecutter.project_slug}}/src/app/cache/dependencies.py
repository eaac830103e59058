"""The dependency for routes whose services use the cache."""

from typing import Annotated

from app.cache.read_through import Cache
from app.web.dependencies import from_state

CacheDep = Annotated[Cache, from_state("cache")]
