"""The errors of passages."""

from app.errors import InvalidInput, NotFound


class PassageNotFound(NotFound):
    type = "urn:problem:passage-not-found"
    title = "Passage Not Found"


class WrongDimensions(InvalidInput):
    type = "urn:problem:wrong-dimensions"
    title = "Wrong Dimensions"
