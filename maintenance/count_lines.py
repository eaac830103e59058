"""Print the lines of code of the service, and refuse files that are too long.

    python maintenance/count_lines.py

Comments, docstrings and blank lines do not count.
"""

import ast
import io
import json
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
MAX_FILE_LINES = 250  # with comments, docstrings and blank lines
LAYOUT = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
}


def count_code_lines(text: str) -> int:
    """Return the lines of a module that are code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if ast.get_docstring(node, clean=False) is not None and first is not None:
                lines -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(lines)


def default_answers() -> dict[str, object]:
    questions = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))
    return {name: v[0] if isinstance(v, list) else v for name, v in questions.items()}


def main() -> None:
    sys.path.insert(0, str(ROOT / "hooks"))
    import post_gen_project as hook

    modules = {
        path.relative_to(TEMPLATE).as_posix(): path.read_text("utf-8")
        for path in (TEMPLATE / "src").rglob("*.py")
    }
    chosen = hook.chosen_options(default_answers())
    unwanted = hook.unwanted_paths(chosen)
    default = {
        path: hook.drop_options(text, chosen)
        for path, text in modules.items()
        if not hook.is_among(path, unwanted)
    }
    for name, texts in (("every option", modules), ("the default answers", default)):
        lines = sum(map(count_code_lines, texts.values()))
        print(f"{lines:,} lines of code in src with {name}, in {len(texts)} modules")
    long = sorted(path for path, text in modules.items() if text.count("\n") > MAX_FILE_LINES)
    if long:
        sys.exit(f"over {MAX_FILE_LINES} lines, so divide them: {', '.join(long)}")


if __name__ == "__main__":
    main()
