"""Tables and pictures of the attacks' results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pyarrow.parquet as pq

from fedenc.files import write_atomically

Result = Mapping[str, Any]
_POLICY_MARKS = {"image": "o", "client": "s", "same": "^", None: "D"}
# Ito, Kinoshita & Kiya, IEEE Access 2021, Figs. 8 to 10: SSIM (uniform 7×7) of three attacks
_COMPARED = {
    "FR-Attack": ("fr-basic",),
    "GAN-Attack": ("sia-gan",),
    "ITN-Attack": ("itn", "itn-network"),
}


def everything(results: Sequence[Result], folder: Path) -> None:
    """Write ``attacks.md`` and ``frontier.png`` into the folder of all cells, and ``ssim.png`` if
    there is something to compare."""
    write_atomically(folder / "attacks.md", table(results).encode() + b"\n")
    frontier(results, folder / "frontier.png")
    boxes(results, folder, folder / "ssim.png")


def best(result: Result) -> Result | None:
    """The row of the attack whose estimates are recognised most often. Of those whose interval
    reaches that share, it is the one that knows least: the highest of many noisy figures is no
    news."""
    rows = [row for row in result["rows"] if row["recognised"] is not None]
    if not rows:
        return None
    top = max(row["recognised"] for row in rows)
    as_good = [row for row in rows if row["recognised_high"] >= top]
    return min(as_good, key=lambda row: (len(row["knowledge"]), -row["recognised"]))


def table(results: Sequence[Result]) -> str:
    """One line a cell, as Markdown: accuracy, what the best attack gets, and the controls."""
    lines = [
        "| method | keys | accuracy raw % | invariant % | linked % | key % | best attack |"
        " recognised % | (protected image) | SSIM | rank |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        accuracy, row = result["accuracy"], best(result)
        cells = [
            result["method"],
            result["keys"] or "none",
            _percent(_protected(accuracy.get("raw"))),
            _percent(_protected(accuracy.get("invariant"))),
            _percent(_highest(result, "linked")),
            _percent(_highest(result, "key_recovered")),
        ]
        if row is None:
            cells += [""] * 5
        else:
            cells += [
                row["attack"],
                _percent(row["recognised"]),
                _percent(row["control"]["ciphertext"]["recognised"]),
                f"{row['ssim_gaussian11']:.2f}",
                f"{row['rank']:.1f}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def frontier(results: Sequence[Result], path: Path) -> None:
    """Leakage against accuracy: for every cell the best attack's recognisability, and the best
    accuracy on protected queries of the models trained on it."""
    figure, axis = plt.subplots(figsize=(9, 6.5), layout="constrained")
    methods = list(dict.fromkeys(result["method"] for result in results))
    colours = plt.get_cmap("tab20")
    for result in results:
        top = best(result)
        if top is None:
            continue
        accuracy = max(_protected(found) or 0 for found in result["accuracy"].values())
        axis.errorbar(
            100 * top["recognised"],
            100 * accuracy,
            xerr=[
                [100 * (top["recognised"] - top["recognised_low"])],
                [100 * (top["recognised_high"] - top["recognised"])],
            ],
            marker=_POLICY_MARKS[result["keys"]],
            color=colours(methods.index(result["method"]) % 20),
            markersize=8,
            elinewidth=0.6,
        )
        axis.annotate(
            result["method"],
            (100 * top["recognised"], 100 * accuracy),
            textcoords="offset points",
            xytext=(7, 4),
            fontsize=8,
        )
    if results:
        chance = 100 * results[0]["chance"]
        axis.axhline(chance, color="grey", linewidth=0.8, linestyle=":")
        axis.axvline(chance, color="grey", linewidth=0.8, linestyle=":")
    for policy, mark in _POLICY_MARKS.items():
        text = "no keys" if policy is None else f"keys: {policy}"
        axis.scatter([], [], marker=mark, color="grey", label=text)
    axis.legend(frameon=False)
    axis.set_xlabel("leakage: best reconstruction recognised by a classifier of plain images (%)")
    axis.set_ylabel("accuracy on protected queries, best input (%)")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def boxes(results: Sequence[Result], folder: Path, path: Path) -> None:
    """SSIM (uniform 7×7) of single images for three attacks, as box plots: of every cell on which
    the last of them was run."""
    results = [r for r in results if _ssim(folder, r, _COMPARED["ITN-Attack"])]
    if not results:
        return
    figure, axes = plt.subplots(
        len(_COMPARED), 1, figsize=(11, 9), sharex=True, sharey=True, layout="constrained"
    )
    names = [r["method"] + (f"\n{r['keys']}" if r["keys"] else "") for r in results]
    for axis, (title, attacks) in zip(axes, _COMPARED.items(), strict=True):
        values = [_ssim(folder, result, attacks) for result in results]
        axis.boxplot(values, tick_labels=names, showfliers=False)
        axis.set_ylabel(f"{title}\nSSIM")
        axis.tick_params(axis="x", labelrotation=90, labelsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _ssim(folder: Path, result: Result, attacks: Sequence[str]) -> list[float]:
    name = result["method"] + (f"_{result['keys']}" if result["keys"] else "")
    for attack in attacks:
        images = folder / name / "work" / attack / "images.parquet"
        if images.exists():
            wanted = [("estimate", "=", "attack")]
            found: list[float] = pq.read_table(images, filters=wanted)["ssim_uniform7"].to_pylist()
            return found
    return []


def _protected(accuracy: Mapping[str, float] | None) -> float | None:
    """On queries as protected as the uploads are."""
    if accuracy is None:
        return None
    return accuracy.get("same-key", accuracy.get("encrypted"))


def _highest(result: Result, measure: str) -> float | None:
    found = [row[measure] for row in result["rows"] if row[measure] is not None]
    return max(found) if found else None


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
