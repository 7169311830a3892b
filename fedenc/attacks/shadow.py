"""Reference models: what an attacker trains himself, to learn how models answer about images that
they have not seen.

They are made as the attacked model was: by its recipe, on as many images if the attacker has twice
as many, protected as the uploads
are as far as an attacker can do that. He shares keys between images as the owners do, but has only
keys of his own.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedenc import models
from fedenc.attacks.base import Labelled, Means, Method, Model
from fedenc.errors import TrainingError
from fedenc.files import write_atomically
from fedenc.keys import NONCE_BYTES, KeyRing
from fedenc.models.network import Network
from fedenc.seeding import Purpose, derive, generator
from fedenc.training.loop import fit
from fedenc.training.model_files import pack_model, read_files, unpack_model
from fedenc.training.training_set import TrainingSet

Protect = Callable[[Tensor, int], Tensor]  # images and the number of a reference model


@dataclass(frozen=True)
class Reference:
    """A trained reference model.

    Attributes:
        network: on the CPU, in evaluation mode.
        rows: int64 (T,), ascending: which public images it was trained on.
    """

    network: Network
    rows: Tensor


def own_keys(method: Method, images: Tensor, owners: int, seed: int, *purpose: Purpose) -> Tensor:
    """Images under keys of the attacker's own, which are shared as the owners' are.

    They are derived from his seed: they have nothing to guard, and a repetition gives equal bytes.

    Args:
        method: where it has no keys, the images stay as they are.
        images: uint8 (N, C, H, W).
        owners: between whom the images are divided, in turn.
        seed: the attack's.
        *purpose: what for; another purpose has other keys.

    Returns:
        uint8 (N, *protected shape).
    """
    cipher, policy = method.cipher, method.policy
    if cipher is None or policy is None:
        return images
    shape = cipher.output_shape(*method.shape)
    protected = torch.empty(len(images), *shape, dtype=torch.uint8)
    name = json.dumps(["attacker", seed, *purpose])  # a number could be a simulation's own seed
    for owner in range(owners):
        own = images[owner::owners]
        keystream = KeyRing.simulated(name, owner, shared=policy == "same").keystream(
            method=cipher.name,
            policy=policy,
            purpose="attack",
            nonce=bytes(NONCE_BYTES),
            ids=torch.arange(len(own)).numpy(),
        )
        protected[owner::owners] = cipher.encrypt(own, keystream)
    return protected


def train_references(
    model: Model, public: Labelled, protect: Protect, count: int, means: Means
) -> Iterator[Reference]:
    """Train reference models, each on a random part of the public images.

    A part has as many images as the model was trained on, but at most half of the public ones. A
    model that lies in ``means.folder`` from an earlier call with the same arguments is not trained
    again.

    Args:
        model: what to imitate.
        public: images to train on.
        protect: makes training images of them, uint8 (N, *protected shape).
        count: of reference models.
        means: the seed, the device, and where models are kept.

    Raises:
        TrainingError: a training fails.
    """
    views = model.views
    size = min(model.images, len(public.images) // 2)
    for number in range(count):
        order = torch.randperm(
            len(public.images), generator=generator(means.seed, "reference images", number)
        )
        rows = order[:size].sort().values
        plain = public.images[rows].repeat_interleave(views, dim=0)
        labels = public.labels[rows].repeat_interleave(views)
        training_set = TrainingSet(protect(plain, number), labels, views)

        def report(share: float, text: str, number: int = number) -> None:
            done = (number + share) / count
            means.report(done, f"reference model {number + 1} of {count}: {text}")

        seed = derive(means.seed, "reference model", number)
        stem = f"reference-{number + 1}"
        network = _trained(model, training_set, seed, means, stem, report)
        yield Reference(network, rows)


def _trained(
    model: Model,
    training_set: TrainingSet,
    seed: int,
    means: Means,
    stem: str,
    report: Callable[[float, str], None],
) -> Network:
    architecture = asdict(model.network.architecture)
    identity = _identity(architecture, model, training_set, seed)
    if means.folder is not None and (kept := _kept(means.folder, stem, identity)) is not None:
        report(1, "kept from before")
        return kept
    size = tuple(architecture.pop("size"))
    network = models.build(**architecture, size=size, seed=seed)
    run = fit(network, training_set, model.config, seed=seed, device=means.device)
    for progress in run:
        report(progress.step / progress.steps, str(progress))
    files, _ = pack_model(run.model, details={"identity": identity}, stem=stem)
    if means.folder is not None:
        for name, content in files.items():
            write_atomically(means.folder / name, content)
    # Also where it was just trained: its tensors' layout, which decides the last bits of what it
    # answers, is then that of a model from a file.
    return unpack_model(files, stem=stem)[0]


def _kept(folder: Path, stem: str, identity: str) -> Network | None:
    """The model of an earlier call, unless it is missing, damaged or another one."""
    try:
        network, details = unpack_model(read_files(folder, stem=stem), stem=stem)
    except TrainingError:
        return None
    return network if details.get("identity") == identity else None


def _identity(
    architecture: dict[str, object], model: Model, training_set: TrainingSet, seed: int
) -> str:
    """SHA-256 of all that a reference model is a function of."""
    settings = [architecture, model.config.as_dict(), training_set.views, seed]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for tensor in (training_set.images, training_set.labels):
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
