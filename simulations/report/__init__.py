"""Reports as one HTML file that needs nothing else: pictures are inside, and no script is."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

REPORT = "report.html"

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


def of_run(folder: Path) -> str:
    """The report of ``fedenc simulate``, from what is in a run's folder alone.

    Raises:
        ScenarioError: ``result.json`` is damaged or of another version.
    """
    from simulations.report import run

    return _page("run.html", run.content(folder))


def of_attacks(facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The report of ``fedenc attack``.

    Args:
        facts: the content of ``attacks.json``.
        pictures: PNG files by the attack's name.
    """
    shown = {name: inlined(content) for name, content in pictures.items()}
    return _page("attacks.html", {"facts": facts, "pictures": shown} | leaked(facts["rows"]))


def of_study(facts: Mapping[str, Any], plots: Mapping[str, bytes]) -> str:
    """The report of ``fedenc study``.

    Args:
        facts: the content of ``study.json``.
        plots: SVG files by title.
    """
    shown = {name: inlined(content, "image/svg+xml") for name, content in plots.items()}
    return _page("study.html", {"facts": facts, "plots": shown})


def of_paper(facts: Mapping[str, Any], figures: Mapping[str, bytes]) -> str:
    """The page of ``fedenc reproduce``.

    Args:
        facts: the content of ``reproduce.json``.
        figures: SVG and PNG files by their path there.
    """
    from simulations.reproduce.command import cells, headings

    kinds = {".svg": "image/svg+xml", ".png": "image/png"}
    shown = {path: inlined(c, kinds[path[-4:]]) for path, c in figures.items()}
    content = {"facts": facts, "figures": shown, "cells": cells, "headings": headings}
    return _page("paper.html", content)


def leaked(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    """What a table of attacks shows: rows that are done, others, columns, and controls."""
    done = [row for row in rows if row["status"] == "done"]
    return {
        "done": done,
        "others": [row for row in rows if row["status"] != "done"],
        "columns": [c for c in COLUMNS if any(row.get(c[0]) is not None for row in done)],
        "controls": _controls(done),
    }


def _controls(done: list[Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """The controls of the attack that knows least, which has the most targets."""
    scored = [row for row in done if "ciphertext" in row.get("control", {})]
    if not scored:
        return {}
    first = max(scored, key=lambda row: int(row["targets"]))["control"]
    controls = [row.get("control", {}) for row in done]
    keys = [control["another key"] for control in controls if "another key" in control]
    shown = {name: found for name, found in first.items() if name != "another key"}
    return shown | ({"another key": keys[0]} if keys else {})


def inlined(content: bytes, kind: str = "image/png") -> str:
    """A picture as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


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


def _page(template: str, content: Mapping[str, Any]) -> str:
    return _environment().get_template(template).render(content)


def _environment() -> "Environment":
    from jinja2 import DictLoader, Environment, StrictUndefined  # only for who reports

    from simulations.report.templates import TEMPLATES

    environment = Environment(
        loader=DictLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown}
    environment.globals |= {"with_interval": with_interval}
    return environment
