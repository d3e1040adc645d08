"""Tables between <!-- name --> and <!-- /name --> on the pages of a clone."""

from __future__ import annotations

import re
from pathlib import Path

from physics_hybrid.writing import write_text

#: The top of the clone.
ROOT = Path(__file__).resolve().parents[2]


def fill(text: str, name: str, content: str, page: str = "the page") -> str:
    """Replace what stands between <!-- name --> and <!-- /name -->.

    page : what the text is called in an error.

    Raises
    ------
    ValueError
        The markers are missing.
    """
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{page} has no place for {name!r}: <!-- {name} --> ... <!-- /{name} -->")
    return pattern.sub(lambda m: m[1] + content.rstrip() + "\n" + m[2], text)


def put(page: str, name: str, content: str, root: Path = ROOT) -> None:
    """Write a table to its place on a page of the clone. Raises ValueError as `fill`."""
    path = root / page
    write_text(path, fill(path.read_text(), name, content, page))
