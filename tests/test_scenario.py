"""Scenarios: every problem at once, one hash an experiment, no key seed for the provider."""

import contextlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedenc.errors import ScenarioError
from fedenc.scenario import ProviderView, Scenario, load, parse

KEYLESS = {"encryption": {"cipher": "transformation"}}


def problems(values: dict[str, Any]) -> list[str]:
    with pytest.raises(ScenarioError) as error:
        parse(values)
    return list(error.value.problems)


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[clients]\ncount = 0\nalpha = -1.0\nsize = 3\n[encryption]\nkeys = "mine"\n')
    with pytest.raises(ScenarioError) as error:
        load(path, ["nonsense", "server.gpus=2", "cients.count=4"])
    found = "\n".join(error.value.problems)
    assert len(error.value.problems) == 7
    for part in (
        "clients.count = 0",
        "clients.alpha = -1.0",
        "unknown key clients.size; known here: count, per_node",
        "encryption.keys = 'mine'",
        "'nonsense'",
        "server.gpus = 2",
        "unknown key cients; known here: seed, data, clients",
    ):
        assert part in found
    assert all("\n" not in p for p in error.value.problems)
    assert error.value.exit_code != 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clients.count", 0),
        ("clients.count", True),
        ("clients.count", "20"),
        ("clients.count", 2.0),
        ("clients.per_node", -1),
        ("clients.images", 0),
        ("clients.plain_fraction", 1.5),
        ("clients.partition", "random"),
        ("clients.alpha", 0),
        ("clients.alpha", float("inf")),
        ("encryption.views", 0),
        ("encryption.seed", -1),
        ("encryption.seed", True),
        ("encryption.options", {"a": [1]}),
        ("encryption.options", {"a": float("nan")}),
        ("augmentation.domain", "both"),
        ("augmentation.fill", 256),
        ("training.learning_rate", 0),
        ("training.learning_rate", float("inf")),
        ("inference.queries", ["plain", "cipher"]),
        ("server.deadline", 0),
        ("server.deadline", float("nan")),
        ("server.deadline", float("inf")),
        ("faults.die", -1),
        ("seed", 1.5),
        ("data", 7),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    (line,) = problems({section: {name: value} if name else value})
    assert line.startswith(f"{key} = ")


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"inference": {"queries": ["same-key"]}}, "no two images share a key"),
        ({"encryption": {"cipher": "none"}, "inference": {"queries": ["encrypted"]}}, "'none'"),
        ({"inference": {"queries": ["plain", "plain"]}}, "twice"),
        ({"server": {"min_clients": 21}}, "never be reached"),
        ({"engine": {"machines": 2}}, "set engine.address"),
        ({"inference": {"queries": ["plain", "foreign"]}}, "only encryption.cipher"),
        (KEYLESS | {"inference": {"queries": ["same-key"]}}, "no keys"),
        (
            KEYLESS
            | {"inference": {"queries": ["foreign"]}, "transformation": {"answers": "central"}},
            "transformation.answers",
        ),
        (
            KEYLESS | {"inference": {"queries": ["foreign"]}, "transformation": {"foreign": False}},
            "transformation.foreign = true",
        ),
        ({"encryption": {"cipher": "transformation", "block_size": 4}}, "sets block_size"),
        (KEYLESS | {"clients": {"plain_fraction": 0.5}}, "needs no uploads"),
        (KEYLESS | {"faults": {"die": 1}}, "needs no uploads"),
        (KEYLESS | {"data": {"shuffle_labels": True}}, "trains no model on uploads"),
        (KEYLESS | {"transformation": {"digest": "0" * 64}}, "set transformation.bundle"),
        (KEYLESS | {"transformation": {"method": "gan", "learning_rate": 0.1}}, "leave it out"),
        ({"transformation": {"alpha": 0.5}}, "the section transformation is set"),
        ({"faults": {"die": 11, "raise": 10}}, "strike 21 participants"),
    ],
)
def test_contradictions(values: dict[str, Any], part: str) -> None:
    (line,) = problems(values)
    assert part in line


def test_contradictions_come_at_once() -> None:
    assert len(problems({"server": {"min_clients": 99}, "faults": {"die": 99}, "seed": 1})) == 2


def test_unknown_keys_of_every_section_are_errors() -> None:
    sections = [name for name, value in Scenario().dump().items() if isinstance(value, dict)]
    assert len(problems({name: {"no_such_key": 1} for name in sections})) == len(sections) == 11


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("clients.count=7", lambda s: s.clients.count == 7),
        ("data.root=../data/a b", lambda s: s.data.root == "../data/a b"),
        ("data.root=true story", lambda s: s.data.root == "true story"),
        ("clients.partition=dirichlet", lambda s: s.clients.partition == "dirichlet"),
        ("clients.partition='dirichlet'", lambda s: s.clients.partition == "dirichlet"),
        ("inference.queries=['plain']", lambda s: s.inference.queries == ("plain",)),
        ("encryption.options.rounds=3", lambda s: s.encryption.options == {"rounds": 3}),
        ("encryption.seed=secret", lambda s: s.encryption.seed == "secret"),
        ("faults.raise=1", lambda s: s.faults.counts()["raise"] == 1),
        (" seed = 5 ", lambda s: s.seed == 5),
        ("engine.address=auto=1", lambda s: s.engine.address == "auto=1"),
    ],
)
def test_overrides(override: str, read: Any) -> None:
    assert read(load(None, [override]))


def test_the_last_override_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text("seed = 1\n[clients]\ncount = 3\nper_node = 2\n")
    s = load(path, ["clients.count=4", "clients.count=5"])
    assert (s.seed, s.clients.count, s.clients.per_node) == (1, 5, 2)


@pytest.mark.parametrize("override", ["", "=", "a", "=3", ".=1", "clients.=1", "seed.x=1"])
def test_overrides_that_are_none(override: str, tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text("seed = 1\n")
    with pytest.raises(ScenarioError):
        load(path, [override])


@pytest.mark.parametrize("content", [None, b"seed = ", b"\xff\xfe", b"seed = 1\nseed = 2"])
def test_files_that_are_none(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ScenarioError, match=r"s\.toml"):
        load(path)
    with pytest.raises(ScenarioError):
        load(tmp_path)


@given(st.text(max_size=30))
def test_any_override_is_taken_or_refused(text: str) -> None:
    with contextlib.suppress(ScenarioError):
        assert isinstance(load(None, [text]), Scenario)


def test_hash_is_the_experiments() -> None:
    first = load(None, ["clients.count=5", "seed=1"])
    assert first.hash() == load(None, ["seed=1", "clients.count=5"]).hash()
    assert first.hash() == parse(first.dump()).hash() == parse(json.loads(first_json(first))).hash()
    for same in ("engine.address=auto", "encryption.seed=7", "encryption.seed=x"):
        assert load(None, ["clients.count=5", "seed=1", same]).hash() == first.hash()
    others = ["seed=2", "clients.count=6", "encryption.keys=same", "data.root=x", "faults.die=1"]
    hashes = {load(None, ["clients.count=5", "seed=1", other]).hash() for other in others}
    assert len(hashes | {first.hash()}) == len(others) + 1


def first_json(scenario: Scenario) -> str:
    return json.dumps(scenario.dump())


def test_dump_reads_back() -> None:
    s = load(None, ["faults.raise=2", "encryption.seed=x", "inference.queries=['plain']"])
    assert parse(s.dump()) == s
    assert Scenario.model_validate_json(s.model_dump_json(by_alias=True)) == s
    assert "seed" not in s.dump(secret=False)["encryption"]
    assert s.dump()["faults"]["raise"] == 2


def test_a_number_is_the_same_written_as_float() -> None:
    assert load(None, ["clients.alpha=1"]).hash() == load(None, ["clients.alpha=1.0"]).hash()


def test_default_conditions_follow_cipher_and_policy() -> None:
    for cipher, keys in itertools.product(["pixel", "none"], ["same", "client", "image"]):
        conditions = parse({"encryption": {"cipher": cipher, "keys": keys}}).conditions()
        expected = {"plain"}
        if cipher == "pixel":
            expected |= {"encrypted"} | ({"same-key"} if keys != "image" else set())
        assert set(conditions) == expected


def test_conditions_without_keys() -> None:
    central = {"transformation": {"answers": "central"}}
    alone = {"transformation": {"foreign": False}}
    assert parse(KEYLESS).conditions() == ("plain", "encrypted", "foreign")
    assert parse(KEYLESS | alone).conditions() == ("plain", "encrypted")
    assert parse(KEYLESS | central).conditions() == ("plain", "encrypted")
    assert not parse(KEYLESS).uploads
    assert parse(KEYLESS | central).uploads
    assert parse({}).uploads


def test_the_third_party_leaves_images_to_those_who_upload() -> None:
    assert parse(KEYLESS).transformation.share() == 1
    central = {"transformation": {"answers": "central"}}
    assert parse(KEYLESS | central).transformation.share() == 0.5
    assert parse(KEYLESS | {"transformation": {"fraction": 0.2}}).transformation.share() == 0.2


def test_where_a_bundle_lies_is_not_part_of_the_experiment() -> None:
    here, there = ({"transformation": {"bundle": path}} for path in ("a", "b"))
    assert parse(KEYLESS | here).hash() == parse(KEYLESS | there).hash()
    weights = {"transformation": {"bundle": "a", "feature_weights": "vgg16.pth"}}
    assert parse(KEYLESS | here).hash() == parse(KEYLESS | weights).hash()
    other = {"transformation": {"bundle": "a", "digest": "0" * 64}}
    assert parse(KEYLESS | here).hash() != parse(KEYLESS | other).hash()


def test_counts_that_follow() -> None:
    s = parse({"clients": {"count": 7, "query_only": 2, "per_node": 4}})
    assert (s.clients.total, s.clients.nodes, s.quorum()) == (9, 3, 4)
    assert parse({"server": {"min_clients": 3}}).quorum() == 3
    options = {"color_shuffle": True, "options": {"x": 1}}
    assert parse({"encryption": options}).encryption.parameters() == {"color_shuffle": True, "x": 1}


def test_a_scenario_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Scenario().seed = 3  # type: ignore[misc]


def test_the_providers_view_has_no_place_for_a_key_seed() -> None:
    fields = ProviderView.model_fields
    assert "encryption" not in fields
    assert "data" not in fields
    with pytest.raises(ValueError, match="extra"):
        ProviderView.model_validate({"encryption": {"seed": 1}})


def test_somebody_has_to_ask_something() -> None:
    with pytest.raises(ScenarioError, match=r"inference\.queries is empty"):
        load(None, ["inference.queries=[]"])
