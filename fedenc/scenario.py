"""One experiment, frozen and validated: TOML in, a canonical hash out, and what the provider sees.

A scenario names everything that decides a result. Unknown keys are errors and all problems are
reported at once. Cipher and model names are only strings here; they are resolved against their
registries by those who may import them.
"""

import hashlib
import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedenc.errors import ScenarioError

Condition = Literal["plain", "encrypted", "same-key", "foreign"]
PLAIN: Condition = "plain"
ENCRYPTED: Condition = "encrypted"  # or protected by the shared transformation network
SAME_KEY: Condition = "same-key"
FOREIGN: Condition = "foreign"  # protected, to a classifier that never met the network

TRANSFORMATION = "transformation"  # stands where a cipher does, and has no keys

Count = Annotated[int, Field(ge=1, strict=True)]  # strict: neither true nor "3" is a number
NonNegative = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[float, Field(gt=0)]
OptionValue = bool | int | float | str


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )


class Data(_Section):
    """Which images, and where they are."""

    name: str = "photos"
    root: str | None = None  # folder with the data set's files; None: the library's own cache
    size: Count | None = None  # pixels; only for `folder` and `synthetic`
    download: bool = False  # let torchvision fetch a missing data set
    count: Count | None = None  # training images of `synthetic`
    shuffle_labels: bool = False  # a control: with labels at random nothing can be learned


class Clients(_Section):
    """Who takes part."""

    count: Count = 20  # participants that upload
    per_node: Count = 1  # participants hosted by one Flower node
    images: Count | None = None  # at most so many training images a participant
    partition: Literal["iid", "dirichlet"] = "iid"
    alpha: Positive = 0.5  # Dirichlet concentration; smaller is more skewed
    plain_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0  # participants that stay plain
    query_only: NonNegative = 0  # outsiders that never upload and only query

    @property
    def total(self) -> int:
        """Participants that upload, then outsiders."""
        return self.count + self.query_only

    @property
    def nodes(self) -> int:
        """Flower nodes needed to host everybody."""
        return math.ceil(self.total / self.per_node)


class Encryption(_Section):
    """How images are protected before they leave a participant."""

    cipher: str = "pixel"
    color_shuffle: bool | None = None  # None: the cipher's default
    block_size: Count | None = None  # pixels; None: the cipher's default
    options: dict[str, OptionValue] = Field(default_factory=dict)  # any further parameters
    keys: Literal["same", "client", "image"] = "image"
    views: Count = 1  # ciphertexts of every image, each under its own key
    seed: NonNegative | str | None = None  # simulated keys; None: a secret of this machine

    @property
    def keyless(self) -> bool:
        """Whether images are protected by the shared transformation network instead of keys."""
        return self.cipher == TRANSFORMATION

    def parameters(self) -> dict[str, OptionValue]:
        """Keyword arguments for the cipher, only those the scenario sets."""
        named = {"color_shuffle": self.color_shuffle, "block_size": self.block_size}
        return {k: v for k, v in named.items() if v is not None} | self.options


class Transformation(_Section):
    """The shared transformation network and the third party that trains it."""

    bundle: str | None = None  # folder of a trained one; None: the third party trains one now
    digest: str | None = None  # SHA-256 that the network must have; None: whatever is there
    answers: Literal["third-party", "central"] = "third-party"  # whose classifier answers queries
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None  # of the training images, its own
    method: Literal["unet", "gan"] = "unet"
    alpha: Annotated[float, Field(ge=0)] = 0.01  # weight of the feature distance in the loss
    widths: tuple[Count, ...] = (64, 128, 256, 512, 1024)  # of the U-Net, from full resolution down
    features: Literal["vgg16-relu2_2", "vgg16-relu1_2", "classifier"] = "vgg16-relu2_2"
    feature_weights: str | None = None  # file of VGG16's ImageNet weights; None: torchvision's
    classifier: str = "resnet20"
    foreign: bool = True  # also train a classifier that never meets the network
    recipe: str = "ito"  # of classifier and network alike
    scale: Positive = 1.0  # fraction of the recipe's epochs
    epochs: Count | None = None  # of the network; None: the recipe's
    classifier_epochs: Count | None = None
    batch_size: Count | None = None
    learning_rate: Positive | None = None  # the network's highest
    augmentation: str = "crop-flip"
    validation: Annotated[float, Field(gt=0, lt=1)] | None = None  # held out; None: the recipe's

    def share(self) -> float:
        """The third party's fraction of the training images; participants own the others, and need
        none where they upload nothing."""
        if self.fraction is not None:
            return self.fraction
        return 1.0 if self.answers == "third-party" else 0.5


class Augmentation(_Section):
    """What is done to images, and by whom; methods are names in ``fedenc.data.augment``."""

    domain: Literal["none", "plain", "encrypted"] = "encrypted"  # of training images
    train: str = "crop-flip"  # by participants before they encrypt, in the plain domain
    server: str = "crop-flip"  # by the server on ciphertext, in the encrypted domain
    query: str = "none"  # by participants to their queries, before they encrypt
    fill: Annotated[int, Field(ge=0, le=255, strict=True)] = 0  # pixels that augmentation uncovers


class Model(_Section):
    """The network the provider trains."""

    name: str = "resnet20"
    input: str = "raw"
    adapter: str | None = None


class Training(_Section):
    """The optimiser's side: a recipe of ``fedenc.training.recipes`` and changes to it."""

    recipe: str = "fast"
    scale: Positive = 1.0  # fraction of the recipe's epochs, its schedule scaled with them
    epochs: Count | None = None  # None: the recipe's
    batch_size: Count | None = None
    learning_rate: Positive | None = None  # the schedule's highest
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False  # torch.compile: pays on a GPU over long runs

    def changes(self) -> dict[str, Any]:
        """What the scenario sets over the recipe's own values."""
        return self.model_dump(exclude={"recipe", "scale"}, exclude_none=True)


class Inference(_Section):
    """Who asks the trained model what, and how."""

    queries: tuple[Condition, ...] | None = None  # None: all that cipher and key policy allow
    images: Count = 25  # held-out images a participant and condition
    paired: bool = True  # same images plain and encrypted, so that agreement can be counted
    flip: bool = False  # test-time augmentation: the server averages over the mirrored image


class Server(_Section):
    """The provider's machine and its patience."""

    gpus: Literal["auto", 0, 1] = "auto"  # of each worker
    workers: Count = 1  # processes that train together, data-parallel
    threads: Count | None = None  # of each worker; None: the machine's cores, divided among them
    min_clients: Count | None = None  # uploads needed to go on; None: half of the participants
    deadline: Positive = 60.0  # seconds without any reply after which the silent are given up
    attempts: Count = 2  # times a participant is asked before it counts as failed


class Engine(_Section):
    """Where the simulation runs. Has no influence on results."""

    address: str | None = None  # an existing Ray cluster, "auto" or host:port; None: start one


class Faults(_Section):
    """Participants (how many) that misbehave when they upload, chosen by the scenario's seed."""

    raise_: NonNegative = Field(0, alias="raise")  # their code raises
    die: NonNegative = 0  # their process dies
    silent: NonNegative = 0  # they answer nothing before the deadline
    garble: NonNegative = 0  # their bytes do not match their digest
    wrong_shape: NonNegative = 0  # their images have another size
    duplicate: NonNegative = 0  # they send an image twice
    transient: bool = False  # only at the first attempt

    def counts(self) -> dict[str, int]:
        """Number of participants for every kind of fault, by its name in a scenario."""
        kinds = self.model_dump(by_alias=True, exclude={"transient"})
        return {kind: int(n) for kind, n in kinds.items()}


class Scenario(_Section):
    """One experiment. Build it with :func:`load` or :func:`parse`, which report errors clearly."""

    seed: NonNegative = 0  # all randomness but keys
    data: Data = Field(default_factory=Data)
    clients: Clients = Field(default_factory=Clients)
    encryption: Encryption = Field(default_factory=Encryption)
    transformation: Transformation = Field(default_factory=Transformation)
    augmentation: Augmentation = Field(default_factory=Augmentation)
    model: Model = Field(default_factory=Model)
    training: Training = Field(default_factory=Training)
    inference: Inference = Field(default_factory=Inference)
    server: Server = Field(default_factory=Server)
    engine: Engine = Field(default_factory=Engine)
    faults: Faults = Faults.model_validate({})

    @model_validator(mode="after")
    def _consistent(self) -> "Scenario":
        if problems := list(_contradictions(self)):
            raise ScenarioError(problems)
        return self

    def conditions(self) -> tuple[Condition, ...]:
        """The kinds of query asked, in the order of the scenario (or of the default)."""
        if self.inference.queries is not None:
            return self.inference.queries
        if self.encryption.cipher == "none":
            return (PLAIN,)
        if self.encryption.keyless:
            return (PLAIN, ENCRYPTED, FOREIGN) if self._has_foreign else (PLAIN, ENCRYPTED)
        return (
            (PLAIN, ENCRYPTED) if self.encryption.keys == "image" else (PLAIN, ENCRYPTED, SAME_KEY)
        )

    @property
    def uploads(self) -> bool:
        """Whether participants upload images to train on, and the provider trains."""
        return not (self.encryption.keyless and self.transformation.answers == "third-party")

    @property
    def _has_foreign(self) -> bool:
        return not self.uploads and self.transformation.foreign

    def quorum(self) -> int:
        """Uploads without which no training starts."""
        return self.server.min_clients or math.ceil(self.clients.count / 2)

    def dump(self, *, secret: bool = True) -> dict[str, Any]:
        """Plain JSON-able values; without ``secret``, those but the seed of the simulated keys."""
        exclude = None if secret else {"encryption": {"seed"}}
        return self.model_dump(mode="json", by_alias=True, exclude=exclude)

    def hash(self) -> str:
        """SHA-256 of the canonical JSON of all that decides a result.

        ``engine`` decides none, and neither do paths to what a digest or a version identifies.
        ``encryption.seed`` stays out because the hash is public and a guessable seed could be
        confirmed by it.
        """
        values = self.dump(secret=False)
        del values["engine"]
        for path in ("bundle", "feature_weights"):
            del values["transformation"][path]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _contradictions(s: Scenario) -> Iterable[str]:
    """Problems that no single key has on its own."""
    same_key, keyless = SAME_KEY in s.conditions(), s.encryption.keyless
    if same_key and not keyless and s.encryption.keys == "image":
        yield (
            "inference.queries asks for same-key queries, but encryption.keys = 'image' has no key "
            "that outlives an image; use keys = 'same' or 'client', or leave same-key out"
        )
    if s.encryption.cipher == "none" and set(s.conditions()) != {PLAIN}:
        yield "inference.queries asks for encrypted queries, but encryption.cipher is 'none'"
    if len(set(s.conditions())) != len(s.conditions()):
        yield f"inference.queries names a condition twice: {list(s.conditions())}"
    if s.model.input != "raw" and s.encryption.cipher not in ("pixel", "none"):
        yield (
            f"model.input = '{s.model.input}' undoes NP and CS only, but encryption.cipher is "
            f"'{s.encryption.cipher}'; use model.input = 'raw' or cipher 'pixel'"
        )
    if (
        s.model.input == "invariant-np"
        and s.encryption.cipher == "pixel"
        and s.encryption.color_shuffle is not False
    ):
        yield (
            "model.input = 'invariant-np' undoes NP only, but colours are shuffled too; set "
            "encryption.color_shuffle = false or use model.input = 'invariant'"
        )
    if s.encryption.views > 1 and not keyless and s.encryption.keys != "image":
        yield (
            f"encryption.views = {s.encryption.views} needs encryption.keys = 'image', found "
            f"'{s.encryption.keys}': under one key all views of an image are the same"
        )
    yield from _keyless_contradictions(s)
    if s.server.min_clients is not None and s.server.min_clients > s.clients.count:
        yield (
            f"server.min_clients = {s.server.min_clients} can never be reached with clients.count "
            f"= {s.clients.count}"
        )
    if (s.training.batch_size or s.server.workers) < s.server.workers:
        yield (
            f"training.batch_size = {s.training.batch_size} leaves some of server.workers = "
            f"{s.server.workers} without an image; raise the one or lower the other"
        )
    if (faulty := sum(s.faults.counts().values())) > s.clients.count:
        yield f"faults strike {faulty} participants, but clients.count is {s.clients.count}"


def _keyless_contradictions(s: Scenario) -> Iterable[str]:
    """Problems of a scenario with the shared transformation network, or of one without."""
    if not s.encryption.keyless:
        if FOREIGN in s.conditions():
            yield (
                "inference.queries asks for foreign queries, which only encryption.cipher = "
                f"'{TRANSFORMATION}' has; found '{s.encryption.cipher}'"
            )
        if s.transformation != Transformation():
            yield (
                f"the section transformation is set, but encryption.cipher is "
                f"'{s.encryption.cipher}'; set it to '{TRANSFORMATION}', or leave the section out"
            )
        return
    if SAME_KEY in s.conditions():
        yield f"inference.queries asks for same-key queries, but '{TRANSFORMATION}' has no keys"
    if FOREIGN in s.conditions() and not s._has_foreign:
        yield (
            "inference.queries asks for foreign queries; expected transformation.answers = "
            "'third-party' and transformation.foreign = true"
        )
    if s.encryption.views > 1:
        yield (
            f"encryption.views = {s.encryption.views}, but without keys all views of an image are "
            "the same; set it to 1"
        )
    if unwanted := sorted(s.encryption.parameters()):
        yield (
            f"encryption sets {', '.join(unwanted)}, which '{TRANSFORMATION}' does not have; its "
            "parameters are in the section transformation"
        )
    if s.transformation.digest is not None and s.transformation.bundle is None:
        yield (
            "transformation.digest is of a network that is there already; set "
            "transformation.bundle to its folder"
        )
    if s.transformation.method == "gan" and s.transformation.learning_rate is not None:
        yield "transformation.learning_rate is of the U-Net; method 'gan' has its own, leave it out"
    if not s.uploads and (s.model != Model() or s.data.shuffle_labels):
        yield (
            "transformation.answers = 'third-party' trains no model on uploads, but the section "
            "model or data.shuffle_labels is set; the classifier is transformation.classifier"
        )
    if not s.uploads and (s.clients.plain_fraction or any(s.faults.counts().values())):
        yield (
            "transformation.answers = 'third-party' needs no uploads, but clients.plain_fraction "
            "or faults are about them; set both to 0, or transformation.answers to 'central'"
        )


def parse(values: Mapping[str, Any]) -> Scenario:
    """Validate nested plain values.

    Raises:
        ScenarioError: every unknown key, bad value and contradiction, one problem each.
    """
    try:
        return Scenario.model_validate(values)
    except ValidationError as error:
        raise ScenarioError(_described(error.errors())) from None


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Scenario:
    """Read a TOML file (None: all defaults) and apply ``section.key=value`` overrides.

    Raises:
        ScenarioError: a missing or malformed file, or anything :func:`parse` finds.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ScenarioError(f"scenario file {path} does not exist") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ScenarioError(f"scenario file {path} cannot be read: {error}") from None
        except tomllib.TOMLDecodeError as error:
            raise ScenarioError(f"scenario file {path} is not valid TOML: {error}") from None
    problems: list[str] = []
    for override in overrides:
        try:
            _apply(values, override)
        except ScenarioError as error:
            problems += error.problems
    try:
        scenario = parse(values)
    except ScenarioError as error:
        raise ScenarioError([*problems, *error.problems]) from None
    if problems:
        raise ScenarioError(problems)
    return scenario


def _apply(values: dict[str, Any], override: str) -> None:
    """Set ``section.key=value`` in nested ``values``; the value is TOML, or else a string."""
    key, sign, text = override.partition("=")
    parts = key.strip().split(".")
    if not sign or not all(parts):
        raise ScenarioError(f"--set {override!r} is not of the form section.key=value")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for part in parts[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ScenarioError(f"--set {override!r}: {part!r} is a value, not a section")
    values[parts[-1]] = value


def _described(errors: Iterable[Any]) -> Iterator[str]:
    """Pydantic's complaints as lines that name the key, what was found and what is expected: one
    line a key, though a value that may be of several types is complained about for each."""
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
    """The keys that may stand where an unknown one was found."""
    section: Any = Scenario
    if len(location) > 1:
        section = Scenario.model_fields[location[0]].annotation
    for name, field in section.model_fields.items():
        yield field.alias or name


class ProviderView(_Section):
    """What the untrusted provider is told of a scenario: no key, no key seed, no image, no label of
    a query, and nothing from which one of them could be derived.
    """

    scenario_hash: str
    seed: NonNegative  # order of training and initialisation; keys do not depend on it
    participants: Count  # ids 0..participants-1 upload
    outsiders: NonNegative  # the following ids only query
    classes: tuple[str, ...]  # names, by label
    shape: tuple[int, int, int]  # C, H, W of every image that may arrive
    cipher: str  # the method, with its public parameters
    cipher_params: dict[str, OptionValue]
    plain_uploads: bool  # whether some participants may stay plain
    views: Count
    augmentation: Augmentation
    model: Model
    training: Training
    conditions: tuple[Condition, ...]
    flip: bool  # test-time augmentation
    server: Server
    quorum: Count
