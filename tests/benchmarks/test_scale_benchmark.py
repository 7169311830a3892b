"""The scale benchmark: its arithmetic, what it moves, and the memory that an upload takes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.scale.raw import Part, Sender
from benchmarks.scale.run import COMPARED, main, summarise, table
from benchmarks.scale.scenarios import IMAGES, uploads
from clients.simulated import Population

ROOT = Path(__file__).resolve().parents[2]
# A participant's bytes: pixels, and a label (4), an id (8) and a view number (2) an image.
BYTES = IMAGES * (3 * 32 * 32 + 4 + 8 + 2)


def sample(kind: str, participants: int, seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "participants": participants,
        "per_node": 50,
        "seconds": seconds,
        "startup": 7.0,
        "bytes": 10_000_000,
        "cpu_seconds": 0.5,
        "rss_before": 100_000_000,
        "rss_peak": 250_000_000,
        "load_before": 1.5,
        "round": 0,
    } | more


def rounds(participants: int, *seconds: tuple[float, float, float]) -> list[dict[str, Any]]:
    """Samples of rounds, each with the seconds of fedenc, raw Ray and pre-made bytes."""
    return [
        sample(kind, participants, value, round=turn)
        for turn, each in enumerate(seconds)
        for kind, value in zip(COMPARED, each, strict=True)
    ]


def test_summary_is_of_medians_and_of_the_rounds_own_ratios() -> None:
    (row,) = summarise(rounds(1000, (3.0, 1.0, 0.1), (4.0, 4.0, 0.2), (8.0, 2.0, 0.3)))
    assert row["n"] == 3
    assert row["milliseconds"] == pytest.approx({"fedenc": 4.0, "ray": 2.0, "premade": 0.2})
    assert row["range"]["fedenc"] == (3.0, 8.0)
    assert row["times_ray"] == 3.0  # of 3, 1 and 4; the ratio of medians would be 2
    assert row["growth"] == 1.0
    assert row["driver_cpu_milliseconds"] == 0.5
    assert row["driver_growth_megabytes"] == 150


def test_growth_is_measured_from_a_thousand_participants_on() -> None:
    samples = [
        *rounds(100, (0.9, 0.1, 0.1)),
        *rounds(1000, (2.0, 1.0, 0.1)),
        *rounds(5000, (15.0, 5.0, 0.5)),
    ]
    assert [row["growth"] for row in summarise(samples)] == [None, 1.0, pytest.approx(1.5)]


def test_cases_are_told_apart_by_participants_a_node() -> None:
    samples = rounds(1000, (2.0, 1.0, 0.1))
    other = [s | {"per_node": 1, "seconds": 2 * s["seconds"]} for s in samples]
    assert [(r["per_node"], r["milliseconds"]["ray"]) for r in summarise(samples + other)] == [
        (50, 1.0),
        (1, 2.0),
    ]


def test_a_round_with_a_failure_is_left_out() -> None:
    samples = rounds(1000, (3.0, 1.0, 0.1), (4.0, 4.0, 0.2))
    failed = {"kind": "fedenc", "participants": 1000, "per_node": 50, "round": 1, "failed": "late"}
    whole, broken = samples[:3], [failed, *samples[4:]]
    (row,) = summarise(whole + broken)
    assert (row["n"], row["times_ray"]) == (1, 3.0)
    assert list(summarise(broken)) == []


def test_table_has_a_row_a_case_and_as_many_cells_as_its_head() -> None:
    rows = list(summarise(rounds(100, (0.9, 0.1, 0.1)) + rounds(1000, (2.0, 1.0, 0.1))))
    lines = table(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert len({line.count("|") for line in lines}) == 1
    assert "1,000" in lines[-1]


def test_every_participant_has_its_images() -> None:
    chosen = uploads(7, 3)
    assert chosen.data.count == 7 * IMAGES
    assert chosen.clients.images == IMAGES
    assert chosen.clients.nodes == 3
    assert chosen.quorum() == 7  # a lost upload is an error, not a faster run


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_bad_counts_are_refused(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run", "--participants", value])
    with pytest.raises(SystemExit):
        main()
    assert "--participants" in capsys.readouterr().err


def measured(kind: str, participants: int, per_node: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale.measure", kind, f"{participants}", f"{per_node}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_raw_ray_sends_what_participants_send() -> None:
    chosen = uploads(5, 2)
    sender, population = Sender(chosen), Population(chosen)
    for node in range(3):
        made = sender.made(node)
        shards = [population.participant(i).upload() for i in population.hosted_by(node)]
        assert [manifest for manifest, _ in made] == [s.manifest.to_json() for s in shards]
        for (_, arrays), shard in zip(made, shards, strict=True):
            assert arrays.keys() == shard.arrays().keys()
            for name, array in shard.arrays().items():
                np.testing.assert_array_equal(arrays[name], array)
        assert size(sender.premade(node)) == size(made) == len(shards) * BYTES


def size(parts: list[Part]) -> int:
    return sum(array.nbytes for _, arrays in parts for array in arrays.values())


@pytest.mark.slow
@pytest.mark.e2e
def test_raw_ray_brings_every_participant() -> None:
    found = measured("ray", 5, 2)
    assert found["participants"] == 5
    assert found["bytes"] == 5 * BYTES
    assert found["seconds"] > 0


@pytest.mark.slow
@pytest.mark.e2e
def test_upload_takes_less_memory_than_one_and_a_half_pools() -> None:
    """With a pool of 154 MB. What was there before the first upload is the constant: interpreter,
    libraries, engine. Were replies kept, the pool's bytes would come on top of those in flight."""
    found = measured("fedenc", 1000, 50)
    assert found["bytes"] == 1000 * BYTES > 150_000_000
    assert found["rss_peak"] - found["rss_before"] < 1.5 * found["bytes"]
