"""What an attack is: a function of what an attacker observes, and of nothing else.

An attack is a frozen dataclass of parameters with one method, ``run``. It gets an
:class:`Observation`, which holds the uploads, all that is public about the method, and exactly the
further knowledge that the attack declares; asking it for anything else raises. It returns
:class:`Findings`. Whoever knows the truth scores them: see :mod:`fedenc.attacks.measures`.

Attackers may make keys of their own, and use any number of them: the methods are public.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fedenc.ciphers.base import Cipher, KeyParts, Shape
from fedenc.errors import AttackError
from fedenc.keys import KeyRing, Policy, new_nonce
from fedenc.models.network import Network
from fedenc.plugins import Parameter
from fedenc.training.config import TrainingConfig
from fedenc.transformation.bundle import Transformation

Cost = Literal["seconds", "minutes", "hours"]
Oracle = Callable[[Tensor, int], Tensor]


class Knowledge(StrEnum):
    """What an attacker may have besides uploads, method and key policy."""

    LABELS = "labels"  # of the uploads; every provider that trains has them
    PUBLIC = "public images"  # of the same kind as the uploads, with labels, none of them uploaded
    PAIRS = "known pairs"  # the plain images of some uploads
    CHOSEN = "chosen plaintexts"  # ciphertexts of any images under the owners' keys
    COLOURS = "true colours"  # the colour of the first pixel of every image
    CANDIDATES = "candidate images"  # plain images, of which some may have been uploaded
    CANDIDATE_LABELS = "candidates' labels"  # which whoever has a candidate can see
    COLLUDERS = "colluders' keys"  # key rings of some owners
    NETWORK = "the shared network"  # which every participant holds
    MODEL = "the trained model"  # its weights and its recipe; every provider that trains has them


@dataclass(frozen=True)
class Method:
    """What everybody knows about how images are protected.

    Attributes:
        name: of the cipher, or of the shared network's kind.
        cipher: None where images are protected by a shared network.
        policy: which images share a key; None where there are no keys.
        shape: (C, H, W) of plain images.
        params: public parameters.
    """

    name: str
    cipher: Cipher | None
    policy: Policy | None
    shape: Shape
    params: Mapping[str, Parameter | None] = field(default_factory=dict)

    @property
    def shares_keys(self) -> bool:
        """Whether several images are under one key."""
        return self.policy in ("same", "client")

    def encrypt_afresh(self, images: Tensor) -> Tensor:
        """What an attacker can do himself: uint8 (N, C, H, W) to ciphertexts under new keys, an
        independent one for each image."""
        if self.cipher is None:
            raise AttackError(f"{self.name} has no keys; expected a cipher")
        keystream = KeyRing.generate().keystream(
            method=self.name,
            policy="image",
            purpose="attack",
            nonce=new_nonce(),
            ids=torch.arange(len(images)).numpy(),
        )
        return self.cipher.encrypt(images, keystream)


@dataclass(frozen=True)
class Uploads:
    """Protected images as a provider stores them, with all that it knows about each.

    Attributes:
        images: uint8 (N, *protected shape).
        owners: int64 (N,), who uploaded it.
        ids: int64 (N,), the owner's number for it.
        views: int64 (N,), which ciphertext of the image it is.
        nonces: of every owner's upload.
    """

    images: Tensor
    owners: Tensor
    ids: Tensor
    views: Tensor
    nonces: Mapping[int, bytes]

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, chosen: Tensor) -> "Uploads":
        """Some of them: int64 (M,) or bool (N,)."""
        return Uploads(
            self.images[chosen],
            self.owners[chosen],
            self.ids[chosen],
            self.views[chosen],
            self.nonces,
        )


@dataclass(frozen=True)
class Labelled:
    """Images uint8 (N, C, H, W) and their labels int64 (N,), 0..classes − 1."""

    images: Tensor
    labels: Tensor
    classes: int


@dataclass(frozen=True)
class Pairs:
    """Known plain images of some uploads.

    Attributes:
        rows: int64 (P,), which of the uploads; at least one of every group that shares a key, and
            in random order.
        plain: uint8 (P, C, H, W).
    """

    rows: Tensor
    plain: Tensor


@dataclass(frozen=True)
class Model:
    """The trained classifier and how it was trained, except for its data and seed.

    Attributes:
        network: with its weights.
        config: the recipe.
        images: number of training images, each in ``views`` protected copies.
        views: of each image.
        owners: who uploaded them.
    """

    network: Network
    config: TrainingConfig
    images: int
    views: int = 1
    owners: int = 1


class Observation:
    """What one attacker has.

    Args:
        method: what is public about the protection.
        uploads: what the owners sent.
        granted: knowledge beyond that. Any other is refused when it is asked for.
    """

    def __init__(
        self, method: Method, uploads: Uploads, granted: Mapping[Knowledge, Any] | None = None
    ) -> None:
        self.method, self.uploads = method, uploads
        self._granted = dict(granted or {})

    def _get(self, knowledge: Knowledge) -> Any:
        try:
            return self._granted[knowledge]
        except KeyError:
            raise AttackError(
                f"the attack uses {knowledge.value}, which it was not granted; add "
                f"Knowledge.{knowledge.name} to what it declares"
            ) from None

    @property
    def labels(self) -> Tensor:
        """int64 (N,): the uploads' labels."""
        return self._get(Knowledge.LABELS)  # type: ignore[no-any-return]

    @property
    def public(self) -> Labelled:
        """Images of the same kind as the uploads, none of them uploaded."""
        return self._get(Knowledge.PUBLIC)  # type: ignore[no-any-return]

    @property
    def pairs(self) -> Pairs:
        """Known plain images of some uploads."""
        return self._get(Knowledge.PAIRS)  # type: ignore[no-any-return]

    @property
    def oracle(self) -> Oracle:
        """Encrypts images uint8 (M, C, H, W) of the attacker's choice as an owner's upload."""
        return self._get(Knowledge.CHOSEN)  # type: ignore[no-any-return]

    @property
    def colours(self) -> Tensor:
        """uint8 (N, C): the true colour of each upload's first pixel."""
        return self._get(Knowledge.COLOURS)  # type: ignore[no-any-return]

    @property
    def candidates(self) -> Tensor:
        """uint8 (K, C, H, W): plain images, of which some may have been uploaded."""
        return self._get(Knowledge.CANDIDATES)  # type: ignore[no-any-return]

    @property
    def candidate_labels(self) -> Tensor:
        """int64 (K,): the candidates' labels."""
        return self._get(Knowledge.CANDIDATE_LABELS)  # type: ignore[no-any-return]

    @property
    def rings(self) -> Mapping[int, KeyRing]:
        """The key rings of owners who collude with the attacker."""
        return self._get(Knowledge.COLLUDERS)  # type: ignore[no-any-return]

    @property
    def network(self) -> Transformation:
        """The shared transformation network."""
        return self._get(Knowledge.NETWORK)  # type: ignore[no-any-return]

    @property
    def model(self) -> Model:
        """The trained classifier."""
        return self._get(Knowledge.MODEL)  # type: ignore[no-any-return]

    def groups(self) -> Iterator[Tensor]:
        """Rows of uploads that share a key, as the policy says: int64 (M,) each."""
        policy, everything = self.method.policy, torch.arange(len(self.uploads))
        if policy in ("same", None):
            yield everything
        elif policy == "client":
            owners = self.uploads.owners
            yield from (everything[owners == i] for i in sorted(set(owners.tolist())))
        else:
            yield from torch.split(everything, 1)


@dataclass(frozen=True)
class Findings:
    """What an attack found; None for what it does not look for.

    Attributes:
        images: uint8 (N, C, H, W), an estimate of the plain image of every upload.
        links: int64 (K,), the row of the upload that shows each candidate; −1: none does.
        members: float64 (K,), the higher, the more likely was the candidate trained on.
        key: for every group of ``Observation.groups``, in order, estimates of the tensors that
            ``Cipher.draw`` gave for it: int64 of the same shapes, one key each, −1 for unknown.
        complement: the masks in ``key`` are only known up to all of them being complemented.
        mirror: all images under a key may be mirrored left to right: no statistic tells.
        facts: further figures by name, such as keys tried in a second.
    """

    images: Tensor | None = None
    links: Tensor | None = None
    members: Tensor | None = None
    key: tuple[KeyParts, ...] | None = None
    complement: bool = False
    mirror: bool = False
    facts: Mapping[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Means:
    """What an attacker works with.

    Attributes:
        seed: of everything random in the attack.
        device: where it computes.
        folder: its own, for checkpoints of long work; None: nothing is kept.
        report: is told the share that is done, 0 to 1, and what is going on.
    """

    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    folder: Path | None = None
    report: Callable[[float, str], None] = lambda done, text: None


@dataclass(frozen=True)
class Attack(ABC):
    """A frozen dataclass of parameters, checked in ``__post_init__``, whose ``run`` is a function
    of its arguments.

    The first line of a subclass's docstring is what ``fedenc attacks`` shows.

    Attributes:
        name: its name in the registry.
        source: where it was published, or where it is derived.
        knowledge: what it needs besides the uploads, at most; see ``needs``.
        cost: on a CPU, with default parameters and a few hundred small images.
        quick: whether it is among the attacks that every simulation ends with.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    knowledge: ClassVar[frozenset[Knowledge]] = frozenset()
    cost: ClassVar[Cost] = "seconds"
    quick: ClassVar[bool] = False

    @abstractmethod
    def unsuitable(self, method: Method) -> str | None:
        """Why it does not apply to a method, as the end of a sentence; None if it does."""

    @abstractmethod
    def run(self, observation: Observation, means: Means) -> Findings:
        """Attack.

        Raises:
            AttackError: there is too little to work on.
            TrainingError: a training within the attack fails.
        """

    def needs(self, method: Method) -> frozenset[Knowledge]:
        """What it uses of its knowledge against a method. Under independent keys nobody needs an
        owner's device: it makes of an image what the attacker's own keys make."""
        return self.knowledge if method.shares_keys else self.knowledge - {Knowledge.CHOSEN}

    def is_quick(self, method: Method) -> bool:
        """Whether it is among the attacks that every simulation with this method ends with: those
        that take a second or so for a hundred images."""
        return self.quick

    def params(self) -> dict[str, Parameter]:
        """The parameters in full; ``make(name, **params)`` builds an equal attack."""
        return dataclasses.asdict(self)
