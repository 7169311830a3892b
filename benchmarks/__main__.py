"""List the benchmarks: one folder each, described by the first paragraph of its README."""

import re
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent


def found(root: Path = HERE) -> Iterator[tuple[str, str]]:
    """Name and one-line description of every benchmark, by name."""
    for readme in sorted(root.glob("*/README.md")):
        yield readme.parent.name, first_paragraph(readme.read_text(encoding="utf-8"))


def first_paragraph(markdown: str) -> str:
    """The first paragraph that is no heading, as one line; empty if there is none."""
    paragraphs = (p.strip() for p in re.split(r"\n\s*\n", markdown))
    return next((" ".join(p.split()) for p in paragraphs if p and not p.startswith("#")), "")


def main() -> None:
    """Print what there is and how to run it."""
    for name, about in found():
        print(f"{name}: {about}")
        print(f"    python -m benchmarks.{name}.run --help\n")
    print("Each folder's README holds the command, the figures measured and what is in them.")


if __name__ == "__main__":
    main()
