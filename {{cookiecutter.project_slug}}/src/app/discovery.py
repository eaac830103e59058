"""Find the modules that every feature may have, such as `models`, `jobs` and `seed`."""

import importlib
import pkgutil
from collections.abc import Iterator
from importlib.resources import files
from types import ModuleType

PARENTS = ("app", "app.features")


def find_modules(name: str) -> Iterator[ModuleType]:
    """Import the module of this name from every package of `app` and of `app.features`.

    Args:
        name: of a module. A package without it is passed over.
    """
    for parent in PARENTS:
        for package in pkgutil.iter_modules(importlib.import_module(parent).__path__):
            if package.ispkg and (files(parent) / package.name / f"{name}.py").is_file():
                yield importlib.import_module(f"{parent}.{package.name}.{name}")
