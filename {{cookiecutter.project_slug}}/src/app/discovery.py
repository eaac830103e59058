"""What features have in common by name: found, not listed, so that none is forgotten."""

import importlib
import pkgutil
from collections.abc import Iterator
from importlib.resources import files
from types import ModuleType

import app


def find_modules(name: str) -> Iterator[ModuleType]:
    """Import the module of this name, such as `models`, of every feature that has one."""
    for package in pkgutil.iter_modules(app.__path__):
        if package.ispkg and (files(app) / package.name / f"{name}.py").is_file():
            yield importlib.import_module(f"app.{package.name}.{name}")
