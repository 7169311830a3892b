"""One experiment, frozen and validated: TOML in, a canonical hash out, and what the provider sees.

A scenario names everything that decides a result. Unknown keys are errors and all problems are
reported at once. Cipher and model names are only strings here; they are resolved against their
registries by those who may import them.
"""

import hashlib
import json
import math
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from fedenc import documents
from fedenc.errors import ScenarioError
from fedenc.scenario import sections
from fedenc.scenario.contradictions import contradictions
from fedenc.scenario.sections import ENCRYPTED, FOREIGN, PLAIN, SAME_KEY, Condition, Section


class Scenario(Section):
    """One experiment. Build it with :func:`load` or :func:`parse`, which report errors clearly."""

    seed: sections.NonNegative = 0  # of all randomness except keys
    data: sections.Data = sections.Data()
    clients: sections.Clients = sections.Clients()
    encryption: sections.Encryption = sections.Encryption()
    transformation: sections.Transformation = sections.Transformation()
    augmentation: sections.Augmentation = sections.Augmentation()
    model: sections.Model = sections.Model()
    training: sections.Training = sections.Training()
    inference: sections.Inference = sections.Inference()
    server: sections.Server = sections.Server()
    engine: sections.Engine = sections.Engine()
    faults: sections.Faults = sections.Faults.model_validate({})

    @model_validator(mode="after")
    def _consistent(self) -> "Scenario":
        if problems := list(contradictions(self)):
            raise ScenarioError(problems)
        return self

    def conditions(self) -> tuple[Condition, ...]:
        """The kinds of query asked, in the order of the scenario (or of the default)."""
        if self.inference.queries is not None:
            return self.inference.queries
        if self.encryption.cipher == "none":
            return (PLAIN,)
        if self.encryption.keyless:
            return (PLAIN, ENCRYPTED, FOREIGN) if self.has_foreign else (PLAIN, ENCRYPTED)
        return (
            (PLAIN, ENCRYPTED) if self.encryption.keys == "image" else (PLAIN, ENCRYPTED, SAME_KEY)
        )

    @property
    def uploads(self) -> bool:
        """Whether participants upload images to train on, and the provider trains."""
        return not (self.encryption.keyless and self.transformation.answers == "third-party")

    @property
    def awaits_bundle(self) -> bool:
        """Whether the third party has yet to train the transformation network."""
        return self.encryption.keyless and self.transformation.bundle is None

    @property
    def paired(self) -> bool:
        """Whether the same images are asked plain and encrypted."""
        return self.inference.paired and {PLAIN, ENCRYPTED} <= set(self.conditions())

    @property
    def has_foreign(self) -> bool:
        return not self.uploads and self.transformation.foreign

    def quorum(self) -> int:
        """Uploads without which no training starts."""
        return self.server.min_clients or math.ceil(self.clients.count / 2)

    def dump(self, *, secret: bool = True) -> dict[str, Any]:
        """Plain JSON-able values; without ``secret``, all but the seed of the simulated keys."""
        exclude = None if secret else {"encryption": {"seed"}}
        return self.model_dump(mode="json", by_alias=True, exclude=exclude)

    def hash(self) -> str:
        """SHA-256 of the canonical JSON of all that decides a result.

        ``engine`` does not change results, nor do paths of what a digest or a version identifies.
        ``encryption.seed`` is left out because the hash is public: it would confirm a guess of the
        seed.
        """
        values = self.dump(secret=False)
        del values["engine"]
        for path in ("bundle", "feature_weights"):
            del values["transformation"][path]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def parse(values: Mapping[str, Any]) -> Scenario:
    """Validate nested plain values.

    Raises:
        ScenarioError: every unknown key, bad value and contradiction, one problem each.
    """
    try:
        return Scenario.model_validate(values)
    except ValidationError as error:
        raise ScenarioError(_described(error.errors())) from None


Check = Callable[[Mapping[str, Any]], Iterable[str]]


def load(
    path: str | Path | None = None, overrides: Sequence[str] = (), *, check: Check | None = None
) -> Scenario:
    """Read a TOML file (None: all defaults) and apply ``section.key=value`` overrides. The
    ``scenario.json`` in a run's folder is read too.

    Args:
        check: finds further problems in the plain values, such as names that are in no registry;
            asked where there are problems, so that all are reported together.

    Raises:
        ScenarioError: a missing or malformed file, or anything that :func:`parse` or ``check``
            finds.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            data = Path(path).read_bytes()
            values = load_json(data) if Path(path).suffix == ".json" else toml(data)
        except FileNotFoundError:
            raise ScenarioError(f"scenario file {path} does not exist") from None
        except OSError as error:
            raise ScenarioError(f"scenario file {path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise ScenarioError(f"scenario file {path} cannot be read: {error}") from None
    problems: list[str] = []
    for override in overrides:
        try:
            _apply(values, override)
        except ScenarioError as error:
            problems += error.problems
    try:
        scenario = parse(values)
    except ScenarioError as error:
        problems += error.problems
    if problems and check is not None:
        problems += check(values)
    if problems:
        raise ScenarioError(problems)
    return scenario


def load_json(data: bytes) -> dict[str, Any]:
    """The values in a run's ``scenario.json``, checked if they come with a digest.

    Raises:
        ValueError: not such values, or damaged ones.
    """
    values = documents.parse(data)
    if isinstance(values, dict) and documents.SEAL not in values:  # written by hand
        return values
    return documents.unsealed(data)


def toml(data: bytes) -> dict[str, Any]:
    """The values of a TOML file; ValueError if it is none."""
    try:
        return tomllib.loads(data.decode())
    except RecursionError:
        raise ValueError("not valid TOML: it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not valid TOML: {error}") from None


def _apply(values: dict[str, Any], override: str) -> None:
    """Set ``section.key=value`` in nested ``values``; the value is TOML, or else a string."""
    key, sign, text = override.partition("=")
    parts = key.strip().split(".")
    if not sign or not all(parts):
        raise ScenarioError(f"--set {override!r} is not of the form section.key=value")
    try:
        value = toml(f"value = {text.strip()}".encode())["value"]
    except ValueError:
        value = text.strip()
    for part in parts[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ScenarioError(f"--set {override!r}: {part!r} is a value, not a section")
    values[parts[-1]] = value


def _described(errors: Iterable[Any]) -> Iterator[str]:
    """Pydantic's errors as lines that name the key, what was found and what is expected: one line
    per key, although pydantic reports an error for each type that a value may have."""
    complaints: dict[tuple[str, str], list[str]] = {}
    for error in errors:
        location = [str(part) for part in error["loc"]]
        key = ".".join(location[:2])
        if error["type"] == "extra_forbidden":
            yield f"unknown key {key}; known here: {', '.join(_known(location))}"
        else:
            message = error["msg"][0].lower() + error["msg"][1:]
            complaints.setdefault((key, repr(error["input"])[:100]), []).append(message)
    for (key, found), messages in complaints.items():
        yield f"{key} = {found}: {', or '.join(dict.fromkeys(messages))}"


def _known(location: Sequence[str]) -> Iterator[str]:
    """The keys that are known where an unknown one was found."""
    section: Any = Scenario
    if len(location) > 1:
        section = Scenario.model_fields[location[0]].annotation
    for name, field in section.model_fields.items():
        yield field.alias or name


class ProviderView(Section):
    """What the untrusted provider is told of a scenario: no key, no key seed, no image, no label of
    a query, and nothing from which one of them could be derived.
    """

    scenario_hash: str
    seed: sections.NonNegative  # order of training and initialisation; keys do not depend on it
    participants: sections.Count  # ids 0..participants-1 upload
    outsiders: sections.NonNegative  # the following ids only query
    classes: tuple[str, ...]  # names, by label
    shape: tuple[int, int, int]  # C, H, W of every image that may arrive
    cipher: str  # the method, with its public parameters
    cipher_params: dict[str, sections.OptionValue]
    plain_uploads: bool  # whether some participants may stay plain
    views: sections.Count
    augmentation: sections.Augmentation
    model: sections.Model
    training: sections.Training
    conditions: tuple[Condition, ...]
    flip: bool  # test-time augmentation
    server: sections.Server
    quorum: sections.Count
