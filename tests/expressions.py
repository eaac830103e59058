"""An evaluator for GitHub's expressions, as far as the workflows use them.

https://docs.github.com/actions/reference/workflows-and-actions/expressions
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

TOKEN = re.compile(r"\s*('(?:[^']|'')*'|==|!=|&&|\|\||[!()\[\]]|[\w.-]+)\s*")
MAY_BE_EMPTY = {"inputs", "matrix", "secrets", "vars"}
EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)


class ExpressionError(Exception):
    """The expression is not supported, or names an unknown value."""


@dataclass
class Expressions:
    """Evaluates text with contexts: github, vars, secrets, inputs, matrix, needs, steps, job.

    Missing values of `vars`, `secrets`, `inputs`, `matrix` and `github.event` are empty. Missing
    values of other contexts are an error.
    """

    contexts: dict[str, Any]
    functions: dict[str, Callable[[], bool]] = field(default_factory=dict)

    def fill(self, text: object) -> str:
        """Replace every ${{ }} with its value."""
        return EXPRESSION.sub(lambda match: _shown(self.value(match[1])), _shown(text))

    def holds(self, condition: str) -> bool:
        """Evaluate an `if:`. Without a status function it also requires success()."""
        inner = EXPRESSION.fullmatch(condition.strip())
        text = inner[1] if inner else condition
        if not re.search(r"\b(success|failure|always|cancelled)\(\)", text):
            return self.functions["success"]() and bool(self.value(text))
        return bool(self.value(text))

    def value(self, text: str) -> Any:
        tokens, position = [], 0
        while position < len(text):
            match = TOKEN.match(text, position)
            if not match:
                raise ExpressionError(text)
            tokens.append(match[1])
            position = match.end()
        value = self._either(tokens)
        if tokens:
            raise ExpressionError(f"{text}: {tokens[0]}")
        return value

    def _either(self, tokens: list[str]) -> Any:
        left = self._both(tokens)
        while tokens[:1] == ["||"]:
            tokens.pop(0)
            right = self._both(tokens)
            left = left or right
        return left

    def _both(self, tokens: list[str]) -> Any:
        left = self._comparison(tokens)
        while tokens[:1] == ["&&"]:
            tokens.pop(0)
            right = self._comparison(tokens)
            left = left and right
        return left

    def _comparison(self, tokens: list[str]) -> Any:
        left = self._term(tokens)
        if tokens[:1] in (["=="], ["!="]):
            is_equal = tokens.pop(0) == "=="
            right = self._term(tokens)
            return (_shown(left).lower() == _shown(right).lower()) == is_equal
        return left

    def _term(self, tokens: list[str]) -> Any:
        token = tokens.pop(0)
        if token == "!":
            return not self._term(tokens)
        if token == "(":
            value = self._either(tokens)
            self._take(tokens, ")")
            return value
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if tokens[:1] == ["("]:
            tokens.pop(0)
            self._take(tokens, ")")
            if token not in self.functions:
                raise ExpressionError(f"{token}()")
            return self.functions[token]()
        path = token.split(".")
        while tokens[:1] == ["["]:
            tokens.pop(0)
            path.append(tokens.pop(0).strip("'"))
            self._take(tokens, "]")
        return self._look_up(path)

    def _look_up(self, path: list[str]) -> Any:
        value: Any = self.contexts
        for depth, name in enumerate(path):
            if name not in value:
                if depth and (path[0] in MAY_BE_EMPTY or path[1] == "event"):
                    return ""
                raise ExpressionError(f"{'.'.join(path)} is not there")
            value = value[name]
        return value

    @staticmethod
    def _take(tokens: list[str], expected: str) -> None:
        if not tokens or tokens.pop(0) != expected:
            raise ExpressionError(f"{expected} is missing")


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
