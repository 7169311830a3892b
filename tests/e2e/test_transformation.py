"""Protection without keys, end to end: the third party trains, participants protect, and query."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import COMMAND, ROOT, SEED, Finished

pytestmark = pytest.mark.e2e
Simulate = Callable[..., Finished]

TINY = [
    "clients.count=20",
    "clients.per_node=5",
    "inference.images=8",
    "transformation.widths=[4,8]",
    "transformation.epochs=1",
    "transformation.classifier_epochs=1",
    "training.epochs=1",
    SEED,
]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False
    )


def test_trained_on_the_fly_and_answered_by_the_third_partys_classifier(
    simulate: Simulate,
) -> None:
    done = simulate(*TINY, preset="ito2021-photos")
    assert done.code == 0, done.err
    result = done.result
    assert set(result["accuracy"]) == {"plain", "encrypted", "foreign"}
    assert all(a["queries"] == 20 * 8 for a in result["accuracy"].values())
    assert result["training"] is None
    assert result["keys"] is None
    assert result["upload"]["images"] == 0
    assert result["model"]["from"] == "third party"
    shared = result["transformation"]
    assert shared["network"]["method"] == "unet"
    assert shared["network"]["architecture"]["widths"] == [4, 8]
    assert shared["measured"]["ssim_uniform7"] <= 1
    assert not (done.folder / "provider" / "pool").exists()
    told = json.loads((done.folder / "third-party" / "provider" / "psi.json").read_text())
    assert told["details"]["transformation"] == shared["digest"]
    for word in ("only query", "no keys", "third party's", "foreign"):
        assert word in done.out
    again = simulate(*TINY, preset="ito2021-photos", name="again")
    assert again.result["model"] == result["model"]
    assert again.result["transformation"] == shared
    assert again.result["accuracy"] == result["accuracy"]


def test_one_bundle_for_many_runs(simulate: Simulate, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    sets = [part for value in TINY for part in ("--set", value)]
    central = "transformation.answers='central'"
    made = command("transformation", "train", str(folder), *sets, "--set", central)
    assert made.returncode == 0, made.stderr
    assert "SSIM between plain and protected" in made.stdout
    assert (folder / "pictures.png").stat().st_size > 1000

    here = f"transformation.bundle='{folder}'"
    people = [value for value in TINY if not value.startswith("transformation.")]
    first = simulate(
        *people,
        here,
        central,
        preset="photos",
        name="central",
        more=("--set", "encryption.cipher='transformation'"),
    )
    assert first.code == 0, first.err
    assert set(first.result["accuracy"]) == {"plain", "encrypted"}
    assert first.result["model"]["from"] == "provider"
    assert first.result["clients"]["uploaded"] == 20
    own = first.result["transformation"]["network"]["data"]
    assert own["fraction"] == 0.5
    assert first.result["upload"]["images"] + own["images"] == own["of"]

    refused = simulate(
        *people,
        here,
        "transformation.alpha=3.0",
        preset="photos",
        name="refused",
        more=("--set", "encryption.cipher='transformation'"),
    )
    assert refused.code == 2
    assert "transformation.alpha = 3.0, but the bundle" in refused.err
    (folder / "participants" / "h.safetensors").write_bytes(b"nothing")
    damaged = simulate(
        *people,
        here,
        preset="photos",
        name="damaged",
        more=("--set", "encryption.cipher='transformation'"),
    )
    assert damaged.code == 10
    assert len(damaged.err.strip().splitlines()) == 1
