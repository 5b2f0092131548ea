"""Documents that hold tables made by a script, between <!-- name --> and <!-- end -->."""

import re


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; bars in its cells are escaped."""
    lines = []
    for cells in (head, ("---",) * len(head), *rows):
        escaped = [cell.replace("|", "\\|") for cell in cells]
        lines.append(f"| {' | '.join(escaped)} |")
    return "\n".join(lines)


def replaced(text: str, name: str, content: str) -> str:
    """The text with the content between <!-- name --> and <!-- end --> replaced.

    Raises:
      ValueError: the text has no such markers.
    """
    marked = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not marked.search(text):
        raise ValueError(f"the document has no <!-- {name} --> ... <!-- end -->")
    return marked.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)
