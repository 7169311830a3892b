"""The sections of a scenario, and the values that they may have."""

import dataclasses
import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fedenc.transformation.config import FeatureName, Method, TransformationConfig

Condition = Literal["plain", "encrypted", "same-key", "foreign"]
PLAIN: Condition = "plain"
ENCRYPTED: Condition = "encrypted"  # or protected by the shared transformation network
SAME_KEY: Condition = "same-key"
FOREIGN: Condition = "foreign"  # protected, to a classifier trained without the network

TRANSFORMATION = "transformation"  # takes the place of a cipher, and has no keys

Count = Annotated[int, Field(ge=1, strict=True)]  # strict: neither true nor "3" is a number
NonNegative = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[float, Field(gt=0)]
OptionValue = bool | int | float | str


class Section(BaseModel):
    """Frozen values; unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )


class Data(Section):
    """Which images, and where they are."""

    name: str = "photos"
    root: str | None = None  # folder with the data set's files; None: the library's own cache
    size: Count | None = None  # pixels; only for `folder` and `synthetic`
    download: bool = False  # let torchvision fetch a missing data set
    count: Count | None = None  # training images of `synthetic`
    shuffle_labels: bool = False  # a control: with random labels nothing can be learned


class Clients(Section):
    """Who takes part."""

    count: Count = 20  # participants that upload
    per_node: Count = 1  # participants hosted by one Flower node
    images: Count | None = None  # the most training images that a participant gets
    partition: Literal["iid", "dirichlet"] = "iid"
    alpha: Positive = 0.5  # Dirichlet concentration; the smaller, the more uneven
    plain_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0  # who upload plain images
    query_only: NonNegative = 0  # outsiders, who never upload and only query

    @property
    def total(self) -> int:
        """Participants that upload, then outsiders."""
        return self.count + self.query_only

    @property
    def nodes(self) -> int:
        """Flower nodes needed to host everybody."""
        return math.ceil(self.total / self.per_node)


class Encryption(Section):
    """How images are protected before they leave a participant."""

    cipher: str = "pixel"
    color_shuffle: bool | None = None  # None: the cipher's default
    block_size: Count | None = None  # pixels; None: the cipher's default
    options: dict[str, OptionValue] = Field(default_factory=dict)  # any further parameters
    keys: Literal["same", "client", "image"] = "image"
    views: Count = 1  # ciphertexts of every image; under own keys if keys = "image"
    seed: NonNegative | str | None = None  # simulated keys; None: a secret of this machine

    @property
    def keyless(self) -> bool:
        """Whether images are protected by the shared transformation network instead of keys."""
        return self.cipher == TRANSFORMATION

    def parameters(self) -> dict[str, OptionValue]:
        """Keyword arguments for the cipher, only those the scenario sets."""
        named = {"color_shuffle": self.color_shuffle, "block_size": self.block_size}
        return {k: v for k, v in named.items() if v is not None} | self.options


class Transformation(Section):
    """The shared transformation network and the third party that trains it. What the network is to
    be is explained, and has its defaults, in ``TransformationConfig``."""

    bundle: str | None = None  # folder of a trained one; None: the third party trains one now
    digest: str | None = None  # SHA-256 that the network must have; None: any
    answers: Literal["third-party", "central"] = "third-party"  # whose classifier answers queries
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None  # of the training images, its own
    method: Method = TransformationConfig.method
    alpha: Annotated[float, Field(ge=0)] = TransformationConfig.alpha
    widths: tuple[Count, ...] = TransformationConfig.widths
    features: FeatureName = TransformationConfig.features
    feature_weights: str | None = TransformationConfig.feature_weights
    classifier: str = TransformationConfig.classifier
    foreign: bool = TransformationConfig.foreign
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

    def config(self) -> TransformationConfig:
        """What is to be trained. TrainingError: values that do not exist or fit together."""
        names = (field.name for field in dataclasses.fields(TransformationConfig))
        return TransformationConfig(**{name: getattr(self, name) for name in names})

    def changes(self, *, classifier: bool = False) -> dict[str, Any]:
        """What is set over the recipe's own values, for the network or the classifiers."""
        shared = self.model_dump(include={"batch_size", "augmentation", "validation"})
        own = {"epochs": self.epochs, "learning_rate": self.learning_rate}
        found = shared | ({"epochs": self.classifier_epochs} if classifier else own)
        return {name: value for name, value in found.items() if value is not None}


class Augmentation(Section):
    """What is done to images, and by whom; methods are names in ``fedenc.data.augment``."""

    domain: Literal["none", "plain", "encrypted"] = "encrypted"  # of training images
    train: str = "crop-flip"  # by participants before they encrypt, in the plain domain
    server: str | None = None  # by the server on ciphertext; None: what the cipher tolerates
    query: str = "none"  # by participants to their queries, before they encrypt
    shared: bool = False  # all views of an image show one augmented copy of it, not one each
    fill: Annotated[int, Field(ge=0, le=255, strict=True)] = 0  # of pixels a shift leaves empty


class Model(Section):
    """The network the provider trains."""

    name: str = "resnet20"
    input: str = "raw"
    compare: tuple[str, ...] = ()  # further input stages, each trained and asked on the same images
    adapter: str | None = None

    def variants(self) -> tuple["Model", ...]:
        """One model for each input stage, the scenario's own first."""
        inputs = dict.fromkeys((self.input, *self.compare))
        return tuple(self.model_copy(update={"input": i, "compare": ()}) for i in inputs)


class Training(Section):
    """How the network is trained: a recipe of ``fedenc.training.recipes`` and changes to it."""

    recipe: str = "fast"
    scale: Positive = 1.0  # fraction of the recipe's epochs, its schedule scaled with them
    epochs: Count | None = None  # None: the recipe's
    batch_size: Count | None = None
    learning_rate: Positive | None = None  # the schedule's highest
    normalisation: Literal["pool", "imagenet", "none"] | None = None  # None: the recipe's
    validation: Annotated[float, Field(ge=0, lt=1)] | None = None  # held out to choose the epoch
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False  # use torch.compile

    def changes(self) -> dict[str, Any]:
        """What the scenario sets in place of the recipe's own values."""
        return self.model_dump(exclude={"recipe", "scale"}, exclude_none=True)


class Inference(Section):
    """Who asks the trained model what, and how."""

    queries: tuple[Condition, ...] | None = None  # None: all that cipher and key policy allow
    images: Count = 25  # held-out images per participant and condition
    total: Count | None = None  # the most of all participants together, per condition; None: no cap
    disjoint: bool = True  # no image is asked both plain and under a key of training images
    paired: bool = True  # same images plain and encrypted, so that agreement can be counted
    flip: bool = False  # test-time augmentation: average over image and mirror image


class Server(Section):
    """The provider's machine, and how long it waits."""

    gpus: Literal["auto", 0, 1] = "auto"  # of each worker
    workers: Count = 1  # processes that train together, data-parallel
    threads: Count | None = None  # of each worker; None: the machine's cores, divided among them
    min_clients: Count | None = None  # uploads needed to start training; None: half of them
    deadline: Positive = 60.0  # seconds without any reply after which it stops waiting
    attempts: Count = 2  # times a participant is asked before it counts as failed


class Engine(Section):
    """Where the simulation runs. Has no influence on results."""

    address: str | None = None  # an existing Ray cluster, "auto" or host:port; None: start one
    machines: Count | None = None  # of that cluster, on which participants run; None: all
    cpus: Count | None = None  # of a cluster that is started here; None: all
    object_store: Count | None = None  # MB that it shares between processes; None: Ray's default


class Faults(Section):
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
