"""Documents that hold tables made by a script, between <!-- name --> and <!-- end -->."""

import re


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; bars in its cells are escaped."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(c.replace('|', chr(92) + '|') for c in line)} |" for line in lines
    )


def replaced(text: str, name: str, content: str) -> str:
    """The text with what stands after <!-- name --> made anew.

    Raises:
      ValueError: the text has no such place.
    """
    marked = re.compile(f"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not marked.search(text):
        raise ValueError(f"there is no <!-- {name} --> ... <!-- end --> in the document")
    return marked.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)
