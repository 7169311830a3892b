"""Reports as one HTML file that needs nothing else: pictures are inside, and no script is."""

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

# What a table of attacks shows, besides the attack and what it knows: field, heading, kind of
# figure, and what the heading means.
COLUMNS = (
    ("key_recovered", "key", "share", "share of the keys recovered"),
    ("linked", "linked", "share", "uploaded candidate images linked to their upload"),
    ("false_links", "false", "share", "other candidate images linked to an upload"),
    ("ssim_gaussian11", "SSIM", "number", "structural similarity to the true image"),
    ("edges", "edges", "number", "correlation of edges with the true image's"),
    ("recognised", "seen", "share", "recognised by a classifier of plain images"),
    ("rank", "rank", "place", "place of the true image among 100; 50.5 by guessing"),
    ("auc", "AUC", "number", "members told from others; 0.5 by guessing"),
)


def of_attacks(facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The report of ``fedenc attack``.

    Args:
        facts: the content of ``attacks.json``.
        pictures: PNG files by the attack's name.
    """
    done = [row for row in facts["rows"] if row["status"] == "done"]
    return (
        _environment()
        .get_template("attacks.html")
        .render(
            facts=facts,
            done=done,
            others=[row for row in facts["rows"] if row["status"] != "done"],
            columns=[c for c in COLUMNS if any(row.get(c[0]) is not None for row in done)],
            controls=_controls(done),
            pictures={
                name: "data:image/png;base64," + base64.b64encode(content).decode()
                for name, content in pictures.items()
            },
        )
    )


def _controls(done: list[Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """The controls of the attack that knows least, which has the most targets."""
    scored = [row for row in done if row["control"]]
    found: Mapping[str, Mapping[str, Any]] = (
        max(scored, key=lambda row: int(row["targets"]))["control"] if scored else {}
    )
    return found


def shown(value: float | None, kind: str) -> str:
    """A figure for people: a share in per cent, a rank with one digit, else two digits."""
    if value is None:
        return ""
    if kind == "share":
        return f"{value:.3g} %" if (value := 100 * value) > 99.95 else f"{value:.1f} %"
    return f"{value:.1f}" if kind == "place" else f"{value:.2f}"


def with_interval(row: Mapping[str, Any], field: str, kind: str) -> str:
    """A figure and its 95 % confidence interval, where it has one."""
    if row.get(field) is None:
        return ""
    text = shown(row[field], kind)
    if row.get(f"{field}_low") is None:
        return text
    low, high = (shown(row[f"{field}_{end}"], kind).removesuffix(" %") for end in ("low", "high"))
    return f"{text} [{low}, {high}]"


def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined  # only for who reports

    environment = Environment(
        loader=PackageLoader("simulations"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown}
    environment.globals |= {"with_interval": with_interval}
    return environment
