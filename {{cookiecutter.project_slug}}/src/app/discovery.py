"""Find the modules that every feature may have, such as `models`, `jobs` and `seed`."""

import importlib
import pkgutil
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType


def find_modules(name: str) -> Iterator[ModuleType]:
    """Import the module of this name from every package of `app` and of `app.features`.

    Args:
        name: of a module. A package without it is passed over.
    """
    for parent in ("app", "app.features"):
        folders = importlib.import_module(parent).__path__
        for package in pkgutil.iter_modules(folders, f"{parent}."):
            if package.ispkg and find_spec(f"{package.name}.{name}"):
                yield importlib.import_module(f"{package.name}.{name}")
