"""What an attacker faces: uploads of a run, or of a method without one, and the truth about them.

The provider's folder holds what the attacker sees. Only the driver, which simulates everybody, also
knows what is behind it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.simulated import Population
from fedenc import seeding
from fedenc.attacks.base import Labelled, Method, Model, Uploads
from fedenc.attacks.target import ABSENT, ELSEWHERE, Target
from fedenc.errors import AttackError, DataError
from fedenc.protection import Keyed
from fedenc.scenario import Scenario
from fedenc.shard import UNPROTECTED, Shard
from fedenc.training.model_files import load_model
from server.pool import Pool
from server.recipe import server_method, training_config
from simulations import result
from simulations.experiment import Experiment, settle
from simulations.run_folder import PROVIDER

MEMBERS = 2_000  # candidates that somebody uploaded, at most, where a model was trained on them
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """How much is attacked, and with how much; each is a highest number.

    Attributes:
        images: uploads that are attacked.
        public: images that the attacker has of his own.
        foils: candidates that nobody uploaded.
        seed: of the choice.
    """

    images: int = 200
    public: int = 2_000
    foils: int = 9_000
    seed: int = 0


def of_run(folder: Path, sample: Sample) -> Target:
    """A finished run as its provider holds it: pool and model.

    Raises:
        ScenarioError: ``result.json`` is missing or damaged.
        DataError: the folder or the pool is not there, or its data set is not.
        ShardError: the pool is of another version.
        AttackError: nobody uploaded protected images, or the participants cannot be made again.
    """
    if not (folder / result.RESULT).exists():
        raise AttackError(
            f"{folder} holds no {result.RESULT}; expected the folder of a finished run of "
            "`fedenc simulate`"
        )
    facts = result.read(folder)
    scenario = Scenario.model_validate(facts["scenario"])
    if not scenario.uploads:
        raise AttackError(
            f"in {folder} participants upload nothing (transformation.answers = 'third-party'); "
            "there is nothing to attack"
        )
    pool = Pool(folder / PROVIDER / "pool")
    if len(pool) < facts["clients"]["uploaded"]:
        raise DataError(
            f"the pool in {folder} is damaged: {len(pool)} of {facts['clients']['uploaded']} "
            "uploads are whole; run the scenario again"
        )
    population, model = settle(scenario), _model(folder, scenario)
    return build(population, pool.shards(), sample, model)


def of_method(population: Population, sample: Sample) -> Target:
    """A method without a run: what the owners of a settled scenario would upload.

    Raises:
        AttackError: nobody uploads protected images.
    """
    return build(population, _uploads(population), sample)


def of_experiment(
    experiment: Experiment, folder: Path, sample: Sample, *, with_model: bool = False
) -> Target:
    """As ``of_run`` for an experiment that has just been performed. Where it ran without an engine
    there is no pool; then participants upload once more.

    Args:
        with_model: also attack the model in the folder.
    """
    population, path = experiment.population, folder / PROVIDER / "pool"
    shards = Pool(path).shards() if path.exists() else _uploads(population)
    model = _model(folder, experiment.scenario) if with_model else None
    return build(population, shards, sample, model)


def _model(folder: Path, scenario: Scenario) -> Model:
    config = training_config(
        scenario.training, scenario.augmentation, method=server_method(scenario.augmentation)
    )
    return Model(load_model(folder)[0], config)


def _uploads(population: Population) -> Iterator[Shard]:
    return (population.participant(i).upload() for i in range(population.scenario.clients.count))


def build(
    population: Population, shards: Iterable[Shard], sample: Sample, model: Model | None = None
) -> Target:
    """Some owners' uploads, and all that is true of them."""
    name = population.protection(0).name
    taken: list[tuple[Shard, Indices]] = []
    # No more than half are of one owner, so that there are several.
    room, each = sample.images, max(1, sample.images // 2)
    for shard in shards:
        if shard.manifest.cipher != name or name == UNPROTECTED[0]:
            continue
        rows = _shuffled(np.arange(len(shard.ids)), sample.seed)[: min(room, each)]
        taken.append((shard, np.sort(rows)))
        room -= len(rows)
        if not room:
            break
    if not taken:
        raise AttackError("nobody uploaded protected images; there is nothing to attack")
    return _target(population, taken, sample, model)


def _target(
    population: Population,
    taken: list[tuple[Shard, Indices]],
    sample: Sample,
    model: Model | None,
) -> Target:
    dataset = population.dataset
    owners = [population.participant(shard.participant) for shard, _ in taken]
    protection = owners[0].protection
    sources = [
        np.asarray(population.partitions[owner.id])[owner.originals[rows]]
        for owner, (_, rows) in zip(owners, taken, strict=True)
    ]
    source = torch.from_numpy(np.concatenate(sources))
    originals = _tensor(dataset.train.images[source.numpy()])
    plain = torch.cat(
        [_tensor(o.copies()[rows]) for o, (_, rows) in zip(owners, taken, strict=True)]
    )
    public, others = _not_uploaded(population, sample)
    candidates, shown = _candidates(population, source, sample.seed, more=model is not None)
    absent = torch.full((len(others.labels),), ABSENT)
    uploads = Uploads(
        images=_joined(shard.images[rows] for shard, rows in taken),
        owners=torch.cat([torch.full((len(rows),), s.participant) for s, rows in taken]),
        ids=_joined(shard.ids[rows] for shard, rows in taken).long(),
        views=_joined(shard.views[rows] for shard, rows in taken).long(),
        nonces={shard.participant: bytes.fromhex(shard.manifest.nonce) for shard, _ in taken},
    )
    labels = _joined(s.labels[rows] for s, rows in taken if s.labels is not None).long()
    cipher = protection.cipher if isinstance(protection, Keyed) else None
    return Target(
        Method(protection.name, cipher, protection.policy, dataset.shape, protection.params()),
        uploads,
        plain,
        labels,
        {owner.id: owner.protection for owner in owners},
        public=public,
        candidates=torch.cat((candidates.images, others.images)),
        candidate_labels=torch.cat((candidates.labels, others.labels)),
        shown=torch.cat((shown, absent)),
        trained_on=None if model is None else torch.cat((shown, absent)) != ABSENT,
        originals=originals,
        model=model,
        seed=sample.seed,
    )


def _candidates(
    population: Population, source: Tensor, seed: int, *, more: bool
) -> tuple[Labelled, Tensor]:
    """Uploaded images: those behind the observed uploads, and where a model was trained on them,
    others too; and where each is shown."""
    train, classes = population.dataset.train, len(population.dataset.classes)
    observed, first = np.unique(source.numpy(), return_index=True)
    shown = [torch.from_numpy(first)]
    chosen = [observed]
    if more:
        every = np.concatenate([population.partitions[i] for i in _encrypting(population)])
        rest = _shuffled(np.setdiff1d(every, observed), seed)[: max(0, MEMBERS - len(observed))]
        chosen.append(np.sort(rest))
        shown.append(torch.full((len(rest),), ELSEWHERE))
    rows = np.concatenate(chosen)
    found = Labelled(_tensor(train.images[rows]), _tensor(population.labels[rows]), classes)
    return found, torch.cat(shown)


def _encrypting(population: Population) -> Iterator[int]:
    return (i for i in range(population.scenario.clients.count) if i not in population.plain)


def _not_uploaded(population: Population, sample: Sample) -> tuple[Labelled | None, Labelled]:
    """Images that nobody uploaded: the attacker's own, and candidates."""
    train, test = population.dataset.train, population.dataset.test
    owned = np.concatenate([np.asarray(part) for part in population.partitions])
    free = np.setdiff1d(np.arange(len(train.labels)), owned)
    order = _shuffled(
        np.concatenate((free, len(train.labels) + np.arange(len(test.labels)))), sample.seed
    )
    half = min(sample.public, len(order) // 2)
    mine, others = np.sort(order[:half]), np.sort(order[half : half + sample.foils])
    labels = np.concatenate((population.labels, test.labels))
    classes = len(population.dataset.classes)
    public, candidates = (
        Labelled(_rows(train.images, test.images, rows), _tensor(labels[rows]), classes)
        for rows in (mine, others)
    )
    return (public if len(mine) else None), candidates


def _rows(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8], rows: Indices) -> Tensor:
    """Some rows of two arrays that are thought to be one."""
    inside = rows[rows < len(first)]
    return torch.cat(
        (_tensor(first[inside]), _tensor(second[rows[rows >= len(first)] - len(first)]))
    )


def _shuffled(values: Indices, seed: int) -> Indices:
    generator = np.random.Generator(np.random.Philox(seeding.derive(seed, "attacked images")))
    return generator.permutation(values)


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(array))


def _joined(parts: Iterable[npt.NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.concatenate(list(parts)))
