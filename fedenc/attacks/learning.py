"""Attacks that learn: a network is trained to undo a protection, and applied to the uploads.

What the attacker trains on are pairs that he makes himself: public images, and what the protection
makes of them. Under shared keys he has a device of one of the owners make them (chosen plaintexts).
Under independent keys his own keys are as good as any.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedenc.attacks.base import Findings, Labelled, Means, Method, Observation
from fedenc.ciphers import functional
from fedenc.ciphers.base import Cipher, Shape
from fedenc.errors import AttackError, TrainingError
from fedenc.files import write_atomically
from fedenc.keys import NONCE_BYTES, KeyRing
from fedenc.models.network import Architecture, Network
from fedenc.training import rng
from fedenc.training.cadence import with_checkpoints
from fedenc.training.config import TrainingConfig
from fedenc.training.loop import Reports, Run
from fedenc.training.precision import autocast
from fedenc.training.sgd import SgdStepper
from fedenc.training.stepper import Measured
from fedenc.training.training_set import Batch, TrainingSet

INPUTS = ("auto", "ciphertext", "canonical")
OWN_KEYS = 4  # ciphertexts of each public image under keys of the attacker's own
LEAST = 10  # public images: one of them is held out

_CHECKPOINT_SECONDS = 10.0  # between two checkpoints, or more where they take long
_REPORTS = Reports(seconds=2.0)
_CHUNK = 64  # images restored at once

Protect = Callable[[Tensor, int], Tensor]
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Canvas:
    """How protected and plain images lie over each other, pixel by pixel, whatever their shapes.

    Where protection changes the number of channels, as ``etc-gray`` does, which puts planes below
    each other, the rows of a protected image are cut into as many planes as there seem to be. Both
    are filled up to a multiple of ``multiple`` pixels.
    """

    protected: Shape
    plain: Shape
    multiple: int = 1

    @property
    def planes(self) -> int:
        """Into which each channel of a protected image is cut."""
        same = self.protected[0] == self.plain[0]
        return 1 if same else max(1, round(self.protected[1] / self.plain[1]))

    @property
    def channels(self) -> int:
        """Of a protected image on the canvas."""
        return self.protected[0] * self.planes

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the canvas."""
        height = max(-(-self.protected[1] // self.planes), self.plain[1])
        width = max(self.protected[2], self.plain[2])
        return self._up(height), self._up(width)

    def _up(self, side: int) -> int:
        return -(-side // self.multiple) * self.multiple

    def lay(self, protected: Tensor) -> Tensor:
        """Protected images, uint8 (N, *protected), to (N, channels, *size)."""
        height, width = self.size
        missing = (0, width - self.protected[2], 0, self.planes * height - self.protected[1])
        return F.pad(protected, missing).reshape(len(protected), self.channels, height, width)

    def fill(self, plain: Tensor) -> Tensor:
        """Plain images, uint8 (N, C, H, W), to (N, C, *size)."""
        return functional.pad_edges(plain, *self.size)

    def cut(self, found: Tensor) -> Tensor:
        """The inverse of ``fill``."""
        return found[..., : self.plain[1], : self.plain[2]]


class Restorer(Network):
    """uint8 N×c×H×W protected images on a canvas to float N×C×H×W plain ones, on a scale of [0, 1].

    ``body`` does so from float in [0, 1]; whether it keeps to the scale is its own affair.
    """

    def __init__(self, name: str, body: nn.Module, canvas: Canvas) -> None:
        # Of two classes: a run stops where the loss is far above that of guessing
        architecture = Architecture(name, canvas.channels, 2, canvas.size)
        super().__init__(architecture, nn.Identity(), body)

    def forward(self, images: Tensor) -> Tensor:
        restored: Tensor = self.body(images.float() / 255)
        return restored


class PairStepper(SgdStepper):
    """Stochastic gradient descent on the mean squared error of a restorer.

    Images are pairs: a protected image's channels, then those of the plain one.

    Args:
        model: the restorer.
        config: how to train it.
        device: where.
        factor: of the mean squared error in what is minimised.
    """

    def __init__(
        self, model: Restorer, config: TrainingConfig, device: torch.device, factor: float = 1.0
    ) -> None:
        super().__init__(model, config, device)
        self._factor = factor

    def prepare(self, images: Tensor) -> None:
        """Nothing is measured: restorers take pixels as they are."""

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"factor": self._factor}

    def _loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Measured]:
        error = self._error(images)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        return error * self._factor, Measured(error.detach()[None] * len(labels), correct)

    def _error(self, images: Tensor) -> Tensor:
        channels = self.model.architecture.channels
        restored = self.model(images[:, :channels]).float()
        return F.mse_loss(restored, images[:, channels:].float() / 255)

    @torch.no_grad()
    def _mean_loss(self, batches: Iterable[Batch]) -> float:
        total, count = 0.0, 0
        with autocast(self.precision, self.device):
            for images, _ in batches:
                total += self._error(images).item() * len(images)
                count += len(images)
        return total / count


@dataclass(frozen=True)
class Learner:
    """How to learn to undo a protection.

    Attributes:
        name: of checkpoints and of the network.
        body: makes the untrained network for a canvas: float (N, c, H, W) to (N, C, H, W).
        config: how to train it.
        multiple: pixels of which the canvas is a multiple.
        mirrored: half the training images are mirrored (before they are protected).
        factor: of the mean squared error in what is minimised, for a canvas.
    """

    name: str
    body: Callable[[Canvas], nn.Module]
    config: TrainingConfig
    multiple: int = 1
    mirrored: bool = False
    factor: Callable[[Canvas], float] = lambda canvas: 1.0

    def restorer(
        self,
        protect: Protect,
        keys: int,
        public: Labelled,
        shapes: tuple[Shape, Shape],
        means: Means,
        number: int = 0,
    ) -> Callable[[Tensor], Tensor]:
        """Train on public images; returns what maps protected images to estimates of plain ones.

        Args:
            protect: maps plain images, and the number of a view of them, to the network's input.
            keys: under how many keys an image is seen, and its mirror image under as many.
            public: what to train on.
            shapes: of the network's input and of plain images.
            means: device, seed, folder and whom to report to.
            number: tells trainings of one attack apart.
        """
        canvas = Canvas(*shapes, self.multiple)
        pairs = self._pairs(protect, keys, public, canvas)
        with rng.seeded(means.seed, "initialisation", self.name):
            model = Restorer(self.name, self.body(canvas), canvas)
        stepper = PairStepper(model, self.config, means.device, self.factor(canvas))
        trained(
            lambda state: Run(stepper, pairs, seed=means.seed, state=state, reports=_REPORTS),
            f"{self.name}-{number}",
            means,
        )
        model.eval()

        def restore(images: Tensor) -> Tensor:
            parts = torch.split(canvas.lay(images.cpu()), _CHUNK)
            with torch.no_grad():
                found = [model(part.to(means.device)).cpu() for part in parts]
            return as_bytes(canvas.cut(torch.cat(found)))

        return restore

    def _pairs(self, protect: Protect, keys: int, public: Labelled, canvas: Canvas) -> TrainingSet:
        """Views of public images: each under every key, and all of these mirrored."""
        sides = [public.images.cpu()]
        if self.mirrored:
            sides.append(sides[0].flip(3))
        views = [
            torch.cat((canvas.lay(protect(side, number).cpu()), canvas.fill(side)), 1)
            for number, side in enumerate(keys * sides)
        ]
        labels = torch.zeros(len(views) * len(sides[0]), dtype=torch.int64)  # play no part
        return TrainingSet(torch.stack(views, 1).flatten(0, 1), labels, len(views))


def undo_cipher(
    learner: Learner, observation: Observation, means: Means, *, owners: int, input: str
) -> Findings:
    """Attack uploads under a cipher, with public images and chosen plaintexts.

    Args:
        learner: how to learn.
        observation: what is seen.
        means: what to work with.
        owners: under the policy ``client`` each owner has a key of his own, for which a network has
            to be trained; at most so many are. The estimate of other owners' images is the mean of
            the public ones.
        input: what the network sees: "ciphertext"; "canonical", the canonical form, from which
            independent keys take nothing away; "auto": the latter under independent keys, where
            there is one.
    """
    method, uploads, public = observation.method, observation.uploads, observation.public
    cipher = method.cipher
    if cipher is None:
        raise AttackError(f"{learner.name} {without_cipher(method)}")
    require_images(learner.name, observation)
    canonical = input == "canonical" or (input == "auto" and not method.shares_keys)
    seen = cipher.canonical(uploads.images) if canonical else None
    if seen is None and input == "canonical":
        raise AttackError(f"{method.name} has no canonical form; expected input ciphertext or auto")
    shapes = cipher.output_shape(*method.shape), method.shape
    if seen is not None:
        restore = learner.restorer(
            lambda plain, _: _of_plain(cipher, plain), 1, public, shapes, means
        )
        return Findings(images=restore(seen), facts=_facts(learner, public, 1, canonical=True))
    if not method.shares_keys:
        own = _own_keys(cipher, means.seed)
        restore = learner.restorer(own, OWN_KEYS, public, shapes, means)
        return Findings(images=restore(uploads.images), facts=_facts(learner, public, 1))
    images = mean_image(public).repeat(len(uploads), 1, 1, 1)
    groups = list(observation.groups())[:owners]
    for number, rows in enumerate(groups):
        owner = int(uploads.owners[rows[0]])
        part = dataclasses.replace(means, report=_share(means, number, len(groups)))
        restore = learner.restorer(
            lambda plain, _, owner=owner: observation.oracle(plain, owner),  # type: ignore[misc]
            1,
            public,
            shapes,
            part,
            owner,
        )
        images[rows] = restore(uploads.images[rows])
    return Findings(images=images, facts=_facts(learner, public, len(groups)))


def undo_network(learner: Learner, observation: Observation, means: Means) -> Findings:
    """Attack uploads that a shared network protects, with public images and that network."""
    require_images(learner.name, observation)
    shape = observation.method.shape
    network = observation.network.to(means.device)
    restore = learner.restorer(
        lambda plain, _: network.protect(plain), 1, observation.public, (shape, shape), means
    )
    images = restore(observation.uploads.images)
    return Findings(images=images, facts=_facts(learner, observation.public, 1))


def _own_keys(cipher: Cipher, seed: int) -> Protect:
    """Protects images under keys of the attacker's own, other ones for each view. They need not be
    secret; from a seed, work can go on where it stopped."""
    ring = KeyRing.simulated(seed, 0)

    def protect(plain: Tensor, view: int) -> Tensor:
        keystream = ring.keystream(
            method=cipher.name,
            policy="image",
            purpose="attack",
            nonce=bytes(NONCE_BYTES),
            ids=np.arange(len(plain)),
            views=view,
        )
        return cipher.encrypt(plain, keystream)

    return protect


def _of_plain(cipher: Cipher, plain: Tensor) -> Tensor:
    """The canonical form of plain images, which a cipher that has one gives to all."""
    found = cipher.canonical(cipher.layout(plain))
    assert found is not None
    return found


def _facts(
    learner: Learner, public: Labelled, networks: int, *, canonical: bool = False
) -> dict[str, float | int | str]:
    return {
        "training images": len(public.images),
        "epochs": learner.config.epochs,
        "networks": networks,
        "input": "canonical" if canonical else "ciphertext",
    }


def _share(means: Means, number: int, of: int) -> Callable[[float, str], None]:
    """Reports one of several parts of the work as its share of the whole."""
    return lambda done, text: means.report((number + done) / of, text)


def without_cipher(method: Method) -> str | None:
    """Why a method does not suit an attack on ciphers."""
    if method.cipher is None:
        return "needs a cipher"
    return None if method.shape[0] in (1, 3) else "needs images of 1 or 3 channels"


def require_images(name: str, observation: Observation) -> None:
    """AttackError unless there are uploads, and enough public images of their shape."""
    found, wanted = tuple(observation.public.images.shape[1:]), observation.method.shape
    if found != wanted:
        raise AttackError(
            f"public images are {'×'.join(map(str, found))}; {name} needs images of the same shape "
            f"as the uploads, {'×'.join(map(str, wanted))}"
        )
    if (count := len(observation.public.images)) < LEAST:
        raise AttackError(f"there are {count} public images; {name} needs at least {LEAST}")
    if not len(observation.uploads):
        raise AttackError("there are no uploads; expected at least one")


def require_positive(**values: int) -> None:
    """AttackError unless every value is a whole number of at least 1."""
    for name, value in values.items():
        if isinstance(value, bool) or value < 1:
            raise AttackError(f"{name} is {value!r}, expected 1 or more")


def mean_image(public: Labelled) -> Tensor:
    """uint8 (C, H, W): the mean of public images."""
    return public.images.float().mean(0).round().to(torch.uint8)


def as_bytes(images: Tensor) -> Tensor:
    """Float in [0, 1] to uint8."""
    return (255 * images.float()).round().clamp(0, 255).to(torch.uint8)


def trained(start: Callable[[bytes | None], Run[M]], stem: str, means: Means) -> Run[M]:
    """Train to the end, from the last checkpoint in the attack's folder if there is one.

    Raises:
        TrainingError: as the training; a checkpoint's error names its file.
    """
    path = None if means.folder is None else means.folder / f"{stem}.checkpoint"
    state = path.read_bytes() if path is not None and path.exists() else None
    try:
        run = start(state)
    except TrainingError as error:
        if state is None:
            raise
        raise TrainingError(f"{path}: {error}") from error
    for progress, checkpoint in with_checkpoints(run, seconds=_CHECKPOINT_SECONDS):
        if checkpoint is not None and path is not None:
            write_atomically(path, checkpoint)
        means.report(progress.step / progress.steps, str(progress))
    return run
