"""The errors of passages."""

from app.errors import InvalidInput, NotFound


class PassageNotFound(NotFound):
    """No passage has this id."""


class WrongDimensions(InvalidInput):
    """The embedding has another number of dimensions than the column."""
