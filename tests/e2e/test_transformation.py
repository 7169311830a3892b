"""Protection without keys, end to end: the third party trains, participants protect, and query."""

import json
from pathlib import Path

import pytest
from command_line import SEED, in_this_process, simulate_here

pytestmark = pytest.mark.e2e

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


def test_trained_on_the_fly_and_answered_by_the_third_partys_classifier(
    joined: str, tmp_path: Path
) -> None:
    done = simulate_here(tmp_path / "run", *TINY, joined, preset="ito2021-photos")
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
    again = simulate_here(tmp_path / "again", *TINY, joined, preset="ito2021-photos").result
    assert again["model"] == result["model"]
    for measured in (again["transformation"]["measured"], shared["measured"]):
        assert all(
            measured["cost"].pop(time) > 0 for time in ("ms_per_image", "ms_least", "ms_most")
        )
    assert again["transformation"] == shared
    assert again["accuracy"] == result["accuracy"]


def test_one_bundle_for_many_runs(joined: str, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    central = "transformation.answers='central'"
    sets = [part for value in (*TINY, central) for part in ("--set", value)]
    code, out, err = in_this_process("transformation", "train", str(folder), *sets)
    assert code == 0, err
    assert "SSIM between plain and protected" in out
    assert (folder / "pictures.png").stat().st_size > 1000

    people = [value for value in TINY if not value.startswith("transformation.")]
    people += ["encryption.cipher='transformation'", f"transformation.bundle='{folder}'"]
    first = simulate_here(tmp_path / "central", *people, joined, central).result
    assert set(first["accuracy"]) == {"plain", "encrypted"}
    assert first["model"]["from"] == "provider"
    assert first["clients"]["uploaded"] == 20
    own = first["transformation"]["network"]["data"]
    assert own["fraction"] == 0.5
    assert first["upload"]["images"] + own["images"] == own["of"]

    refused = simulate_here(tmp_path / "refused", *people, "transformation.alpha=3.0")
    assert refused.code == 2
    assert "transformation.alpha = 3.0, but the bundle" in refused.err
    (folder / "participants" / "h.safetensors").write_bytes(b"nothing")
    damaged = simulate_here(tmp_path / "damaged", *people)
    assert damaged.code == 10
    assert len(damaged.err.strip().splitlines()) == 1
