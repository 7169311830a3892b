"""A study makes every combination once, reports every problem first, and its table is tidy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from fedenc.attacks.measures import share_interval
from fedenc.errors import EngineError, ScenarioError
from fedenc.scenario import Scenario
from simulations import presets, result
from simulations.study import command, design, estimate, plots, runs, table
from simulations.study.design import Design, Plot

TEXT = """
[study]
name = "mine"
question = "Does it hold?"
seeds = 2

[base]
preset = "photos"
training.epochs = 1

[axes]
"clients.count" = [2, 4]
encryption.keys = ["image", "same"]

[[variants]]
name = "NP"
encryption.color_shuffle = false
model.compare = []

[[variants]]
name = "LE"
encryption.cipher = "le"

[[exclude]]
variant = "LE"
"clients.count" = 4
"""


def write(folder: Path, text: str = TEXT) -> str:
    path = folder / "study.toml"
    path.write_text(text)
    return str(path)


def test_every_combination_is_made_once(tmp_path: Path) -> None:
    found = design.load(write(tmp_path), ["inference.images=3"])
    assert len(found.cells) == (2 * 2 * 2 - 2) * 2
    assert len({cell.id for cell in found.cells}) == len(found.cells)
    assert found.columns == ["variant", "clients.count", "encryption.keys"]
    for cell in found.cells:
        scenario = cell.scenario
        assert scenario.clients.count == cell.labels["clients.count"]
        assert scenario.encryption.keys == cell.labels["encryption.keys"]
        assert (scenario.encryption.cipher == "le") == (cell.labels["variant"] == "LE")
        assert (scenario.training.epochs, scenario.inference.images) == (1, 3)
        assert scenario.seed in (0, 1)
        assert cell.labels["variant"] == "NP" or scenario.clients.count == 2
    assert found == design.load(write(tmp_path), ["inference.images=3"])


GROUPS = """
[study]
name = "groups"
question = "Both?"

[base]
preset = "photos"
transformation.epochs = 3

[[variants.protection]]
name = "LE"
encryption.cipher = "le"

[[variants.protection]]
name = "network"
encryption.cipher = "transformation"

[[variants."augmented by"]]
name = "nobody"
augmentation.domain = "none"

[[variants."augmented by"]]
name = "owners"
augmentation.domain = "plain"
transformation.augmentation = "none"

[[exclude]]
protection = "LE"
"augmented by" = "owners"
"""


def test_groups_of_variants_are_combined(tmp_path: Path) -> None:
    found = design.load(write(tmp_path, GROUPS), ["transformation.alpha=0.5"])
    assert found.columns == ["protection", "augmented by"]
    labels = [tuple(cell.labels.values()) for cell in found.cells]
    assert labels == [("LE", "nobody"), ("network", "nobody"), ("network", "owners")]
    le, network, other = (cell.scenario for cell in found.cells)
    assert le.transformation == Scenario().transformation, "its settings concern networks only"
    assert (network.transformation.epochs, network.transformation.alpha) == (3, 0.5)
    assert (network.augmentation.domain, other.transformation.augmentation) == ("none", "none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('name = "nobody"', ""), "augmented by 0 has no name"),
        (
            ('augmentation.domain = "none"', 'encryption.cipher = "ele"'),
            "encryption.cipher is set by",
        ),
        (('"transformation"', '"pixel"'), r"transformation\.\* is set, but no run has"),
        (("\ntransformation.augmentation", "\ntransformation.augmentatio"), "unknown key"),
        (("transformation.epochs", "transformation.epoch"), "unknown key transformation.epoch;"),
    ],
)
def test_groups_that_do_not_fit(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = GROUPS.replace(*change)
    if "no run has" in message:
        text = text.replace("transformation.augmentation", "augmentation.train")
    with pytest.raises(ScenarioError, match=message):
        design.load(write(tmp_path, text))


def test_a_group_is_not_called_like_a_column(tmp_path: Path) -> None:
    study = design.load(write(tmp_path, GROUPS.replace("protection", "input")))
    with pytest.raises(ScenarioError, match="the table has a column 'input' already"):
        command.perform(study, tmp_path / "out", Console(quiet=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[2, 4]", "[2, 4, 5000]"), "clients.count = 5000.*more participants|fewer|images"),
        (('"le"', '"lee"'), "variant = LE, clients.count = 2.*encryption.cipher = 'lee'"),
        (("seeds = 2", "seeds = 0"), "study.seeds"),
        (("[2, 4]", "7"), "axes.clients.count is 7; expected a list of values"),
        (('name = "NP"', ""), "variant 0 has no name"),
        (("[axes]", "[axis]"), "axis: extra inputs are not permitted"),
        (('"photos"', '"photoz"'), "no preset or scenario file 'photoz'"),
        (("[2, 4]", "[2, 2]"), "is the same run as another one"),
        (("[[exclude]]", '[[exclude]]\n"clients.count" = 2\n[[exclude]]'), None),
    ],
)
def test_problems_of_all_cells_are_reported_first(
    tmp_path: Path, change: tuple[str, str], message: str | None
) -> None:
    path = write(tmp_path, TEXT.replace(*change))
    if message is None:
        assert len(design.load(path).cells) == 4
        return
    with pytest.raises(ScenarioError, match=message):
        design.load(path)


def test_a_missing_study_is_said() -> None:
    with pytest.raises(ScenarioError, match="no study preset or file 'nowhere'; presets are"):
        design.load("nowhere")


def test_presets_are_valid_studies() -> None:
    for name in design.names():
        assert design.file(name).study.question.endswith("?")
        found = design.load(name, ["data.name=photos", "clients.count=4", "clients.images=4"])
        assert all(plots.check(plot, found.columns) == [] for plot in found.plots)


def test_the_estimate_counts_what_an_epoch_visits() -> None:
    rates: dict[str, float] = {}

    def training(preset: str, *sets: str) -> float:
        scenario = presets.resolve(preset, ["encryption.seed=1", *sets])[1]
        return estimate.seconds(scenario, rates) - estimate._START_UP

    once = training("photos", "model.compare=[]")
    assert once > 0
    assert training("photos") == pytest.approx(2 * once), "two input stages"
    assert training("photos", "model.compare=[]", "encryption.views=4") == once, "one of four views"
    copies = "augmentation.server=shift-flip-all"
    assert training("photos", "model.compare=[]", copies) == pytest.approx(8 * once)
    small = "transformation.widths=[4, 8]"
    network = training("ito2021-photos", small, "transformation.foreign=false")
    assert 0 < network < training("ito2021-photos", small), "another classifier"


@pytest.mark.parametrize(
    ("at_once", "machines", "expected"),
    [
        (None, [(2, 0)], (1, 2, 0)),
        (None, [(16, 0)], (4, 4, 0)),
        (None, [(64, 8)], (8, 8, 1)),
        (3, [(64, 8)], (3, 21, 1)),
        (2, [(4, 0), (4, 0)], (2, 4, 0)),
        (None, [(1, 0), (1, 0)], (1, 1, 0)),  # not both CPUs: they are of two machines
        (None, [(32, 0), (8, 1)], (1, 8, 1)),  # beside the GPU
    ],
)
def test_runs_share_the_machines(
    at_once: int | None, machines: list[tuple[int, int]], expected: tuple[int, int, int]
) -> None:
    found = runs.share(at_once, machines)
    assert (found.at_once, found.cpus, found.gpus) == expected


def test_no_more_runs_than_cpus() -> None:
    with pytest.raises(EngineError, match="--at-once 3 is more than the 2 CPUs"):
        runs.share(3, [(2, 0)])


@pytest.mark.parametrize(
    ("at_once", "machines", "message"),
    [
        (1, [(1, 0), (1, 0)], "1 at once, each run would need 2 CPUs and 0 GPUs of one machine"),
        (2, [(6, 0), (1, 0), (1, 0), (1, 2)], "would need 4 CPUs and 1 GPUs .* more than 1 CPUs"),
        (None, [(8, 0), (0, 1)], "would need 1 CPUs and 1 GPUs .* more than 0 CPUs"),
    ],
)
def test_a_run_that_no_machine_has_room_for_is_refused(
    at_once: int | None, machines: list[tuple[int, int]], message: str
) -> None:
    """Ray would let it wait for ever."""
    with pytest.raises(EngineError, match=message):
        runs.share(at_once, machines)


def test_the_number_of_machines_makes_another_run_of_the_same_scenario(tmp_path: Path) -> None:
    axes = '[base]\nengine.address = "auto"\n[axes]\n"engine.machines" = [1, 2]\n'
    text = '[study]\nname = "m"\nquestion = "How fast?"\n' + axes
    first, second = design.load(write(tmp_path, text)).cells
    assert first.scenario.hash() == second.scenario.hash()
    assert first.id != second.id


def test_runs_that_join_a_cluster_are_not_placed_on_another(tmp_path: Path) -> None:
    cells = design.load(write(tmp_path), ["engine.address=auto"]).cells
    for address, at_once in (("auto", None), (None, 2)):
        with pytest.raises(EngineError, match="leave out --address and --at-once"):
            list(runs.run(cells, tmp_path, address=address, at_once=at_once))


def test_runs_join_no_other_ray_and_see_no_other_gpu() -> None:
    given = {"RAY_ADDRESS": "auto", "PATH": "/bin", "CUDA_VISIBLE_DEVICES": "3"}
    found = runs._environment(given, gpus=1)
    assert "RAY_ADDRESS" not in found
    assert found["CUDA_VISIBLE_DEVICES"] == "3"
    assert runs._environment(given, gpus=0)["CUDA_VISIBLE_DEVICES"] == ""


def test_intervals_over_seeds_are_students() -> None:
    values = [0.5, 0.56, 0.49, 0.61]
    mean, deviation, half = table.over_seeds(values)
    low, high = stats.t.interval(0.95, 3, loc=mean, scale=stats.sem(values))
    assert half is not None
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert deviation == pytest.approx(np.std(values, ddof=1))
    assert table.over_seeds([0.4]) == (0.4, None, None)


def fake(design_: Design, folder: Path, skip: int = 0) -> None:
    """Results of runs, as if they had been made."""
    for number, cell in enumerate(design_.cells):
        own = folder / runs.RUNS / cell.id
        own.mkdir(parents=True)
        if number < skip:
            (own / "output.txt").write_text("noise\nfedenc: it broke\n")
            continue
        share = 0.1 * (number % 5) + 0.2
        found = {"overall": share, "per_client_mean": share, "per_client_std": 0}
        found |= {"queries": 10, "images": 5}
        facts: dict[str, Any] = {
            "schema": result.SCHEMA,
            "scenario": cell.scenario.dump(),
            "chance": 0.125,
            "clients": {"uploaded": 2, "failed": []},
            "upload": {"bytes": 9, "seconds": 1.0, "clients_per_second": 2.0},
            "model": {"input": "raw", "sha256": "ab"},
            "training": {"final_loss": 1.0, "seconds": 2.0, "images_per_second": 3.0},
            "agreement": {"plain_vs_encrypted": 0.5, "pairs": 10},
            "accuracy": dict.fromkeys(cell.scenario.conditions(), found),
        }
        result.write_facts(own, facts)


def test_the_table_is_tidy_and_names_what_failed(tmp_path: Path) -> None:
    found = design.load(write(tmp_path))
    folder = tmp_path / "out"
    fake(found, folder, skip=1)
    done = command.write(found, folder, 1.0)
    rows = done.rows
    assert len(rows) == 1 + sum(len(cell.scenario.conditions()) for cell in found.cells[1:])
    assert rows[0]["status"] == "failed"
    assert rows[0]["reason"] == "fedenc: it broke"
    assert done.facts["failed"][0]["run"] == found.cells[0].id
    saved = table.arrow(rows)
    for name in ("clients.count", "encryption.keys", "seed", "variant", "accuracy", "queries"):
        assert name in saved.column_names
    assert "encryption.seed" not in saved.column_names, "keys' seeds are in no table"
    hits = round(5 * rows[1]["accuracy"])
    assert (rows[1]["queries"], rows[1]["images"]) == (10, 5)
    interval = share_interval(hits, 5)  # over images, not over questions
    assert (rows[1]["accuracy_low"], rows[1]["accuracy_high"]) == (interval.low, interval.high)
    whole = [line for line in done.facts["summary"] if line["seeds"] == 2]
    assert whole
    assert all(line["half"] > line["deviation"] > 0 for line in whole)
    shown = Console(record=True, width=200)
    command.show(shown, done)
    first, text = whole[0], shown.export_text()
    assert f"{100 * first['accuracy']:.1f} ± {100 * first['deviation']:.1f} %" in text
    json.dumps(done.facts)


def test_what_is_left_to_see_comes_from_uploads_or_from_the_third_party() -> None:
    row = {"attack": "observe", "control": {"ciphertext": {"ssim_uniform7": 0.2, "psnr": 9.0}}}
    seen = table._visible({"leakage": {"rows": [{"attack": "link"}, row]}})
    assert (seen["visible_ssim_uniform7"], seen["visible_psnr"]) == (0.2, 9.0)
    assert seen["collapsed"] is None
    measured = {"ssim_uniform7": 0.7, "collapse": {"collapsed": True}, "cost": {"bytes": 8}}
    told = table._visible({"transformation": {"measured": measured}})
    assert (told["visible_ssim_uniform7"], told["collapsed"], told["network_bytes"]) == (
        0.7,
        True,
        8,
    )


def test_plots_are_drawn_and_unknown_columns_refused(tmp_path: Path) -> None:
    found = design.load(write(tmp_path))
    fake(found, tmp_path / "out")
    rows = table.rows(found, tmp_path / "out")
    plot = Plot(x="clients.count", colour="variant", facets="condition", log=True)
    files = plots.draw(plot, rows)
    assert files["png"].startswith(b"\x89PNG")
    assert files["svg"] == plots.draw(plot, rows)["svg"], "the same rows, the same bytes"
    plots.draw(Plot(x="encryption.keys", where={"variant": "NP"}), rows)
    (problem,) = plots.check(Plot(x="client.count"), found.columns)
    assert problem.startswith("a plot names the column 'client.count'; known are accuracy")
    assert plots.check(plot, found.columns) == []
    empty = plots.draw(plot, [row | {"status": "failed"} for row in rows])
    assert empty["png"].startswith(b"\x89PNG"), "also if every run failed"


def test_a_folder_belongs_to_one_study(tmp_path: Path) -> None:
    found = design.load(write(tmp_path))
    folder = tmp_path / "out"
    command._claim(found, folder, resume=False)
    command._claim(found, folder, resume=True)
    with pytest.raises(ScenarioError, match="use --resume"):
        command._claim(found, folder, resume=False)
    other = Design("other", "?", found.cells)
    with pytest.raises(ScenarioError, match="holds the study 'mine', not 'other'"):
        command._claim(other, folder, resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ScenarioError, match="not empty and holds no study"):
        command._claim(found, tmp_path / "full", resume=True)


def test_a_network_that_several_runs_need_is_trained_once(tmp_path: Path) -> None:
    text = """
    [study]
    name = "shared"
    question = "Once?"
    [base]
    preset = "ito2021-photos"
    [axes]
    "transformation.alpha" = [0.01, 0.1]
    "clients.count" = [2, 4]
    """
    cells = design.load(write(tmp_path, text)).cells
    assert len({runs.bundle(cell) for cell in cells}) == 2
    shared = runs._shared(cells)
    assert len(shared) == 2
    assert all(runs.bundle(cell) == key for key, cell in shared.items())
    assert runs._shared(cells[:2]) == {runs.bundle(cells[0]): cells[0]}
    assert runs._shared([cells[0], cells[2]]) == {}, "each run trains its own"
    plain = design.load(write(tmp_path)).cells[0]
    assert runs.bundle(plain) is None
