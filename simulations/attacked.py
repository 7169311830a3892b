"""What an attacker faces: uploads of a run, or of a method without one, and the truth about them.

The provider's folder holds what the attacker sees. Only the driver, which simulates everybody, also
knows what is behind it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clients.participant import Participant
from clients.simulated import Population
from fedenc import seeding
from fedenc.attacks.base import Labelled, Method, Model, Uploads
from fedenc.attacks.target import ABSENT, ELSEWHERE, Target
from fedenc.errors import AttackError, DataError, ScenarioError
from fedenc.protection import Keyed
from fedenc.scenario import Scenario, parse
from fedenc.shard import TRAIN, UNPROTECTED, Shard
from fedenc.training.model_files import load_model
from server.pool import Pool
from server.recipe import server_method, training_config
from simulations import result
from simulations.experiment import Experiment, settle
from simulations.run_folder import PROVIDER

OWNERS = 5  # whose uploads are attacked, at least, if there are so many
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
    scenario = _scenario(folder, facts)
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
    model = _model(folder, facts, scenario)
    return build(settle(scenario), pool.shards(), pool.participants, sample, model)


def of_method(population: Population, sample: Sample) -> Target:
    """A method without a run: what the owners of a settled scenario would upload.

    Raises:
        AttackError: nobody uploads protected images.
    """
    return build(population, _uploads(population), _members(population), sample)


def of_experiment(
    experiment: Experiment, folder: Path, sample: Sample, *, with_model: bool = False
) -> Target:
    """As ``of_run`` for an experiment that has just been performed. Where it ran without an engine
    there is no pool; then participants upload once more.

    Args:
        with_model: also attack the model in the folder.
    """
    population, path = experiment.population, folder / PROVIDER / "pool"
    facts = result.read(folder) if with_model else {}
    model = _model(folder, facts, experiment.scenario) if with_model else None
    if path.exists():
        pool = Pool(path)
        return build(population, pool.shards(), pool.participants, sample, model)
    return build(population, _uploads(population), _members(population), sample, model)


def _scenario(folder: Path, facts: Mapping[str, Any]) -> Scenario:
    """AttackError if ``result.json`` lacks what an attack needs of it."""
    try:
        scenario = parse(facts["scenario"])
        int(facts["clients"]["uploaded"]), int(facts["upload"]["images"])
    except (KeyError, TypeError, ValueError, ScenarioError) as error:
        raise AttackError(
            f"{folder / result.RESULT} is damaged ({error}); run the scenario again"
        ) from None
    return scenario


def _model(folder: Path, facts: Mapping[str, Any], scenario: Scenario) -> Model:
    config = training_config(
        scenario.training, scenario.augmentation, method=server_method(scenario.augmentation)
    )
    views = scenario.encryption.views
    images, owners = facts["upload"]["images"] // views, facts["clients"]["uploaded"]
    return Model(load_model(folder)[0], config, images, views, owners)


def _members(population: Population) -> Sequence[int]:
    return range(population.scenario.clients.count)


def _uploads(population: Population) -> Iterator[Shard]:
    return (population.participant(i).upload() for i in _members(population))


def build(
    population: Population,
    shards: Iterable[Shard],
    members: Sequence[int],
    sample: Sample,
    model: Model | None = None,
) -> Target:
    """Some owners' uploads, and all that is true of them.

    Args:
        shards: of owners, in any order; no more than needed are taken.
        members: all who uploaded.
        model: what was trained on the uploads; with it, plain uploads can be attacked too.

    Raises:
        AttackError: nobody uploaded what is to be attacked, or what an owner uploaded is not what
            it would upload now.
    """
    name = population.protection(0).name
    attackable = name != UNPROTECTED[0] or model is not None
    encrypting = [i for i in members if i not in population.plain] or members
    each = -(-sample.images // min(OWNERS, len(encrypting) or 1))
    found = list[Shard]()
    for shard in shards:
        if shard.manifest.cipher == name and attackable:
            found.append(shard)
        if sum(min(each, len(shard.ids)) for shard in found) >= sample.images:
            break
    counts = _spread([len(shard.ids) for shard in found], sample.images, each)
    taken = [
        (shard, np.sort(_shuffled(np.arange(len(shard.ids)), sample.seed)[:count]))
        for shard, count in zip(found, counts, strict=True)
        if count
    ]
    if not taken:
        raise AttackError("nobody uploaded protected images; there is nothing to attack")
    return _target(population, taken, members, sample, model)


def _spread(sizes: Sequence[int], total: int, each: int) -> list[int]:
    """How many of each to take: ``each``, and more only where that does not come to ``total``."""
    counts = list[int]()
    for size in sizes:
        counts.append(min(each, size, total - sum(counts)))
    for i, size in enumerate(sizes):
        counts[i] += min(size - counts[i], total - sum(counts))
    return counts


def _target(
    population: Population,
    taken: list[tuple[Shard, Indices]],
    members: Sequence[int],
    sample: Sample,
    model: Model | None,
) -> Target:
    dataset = population.dataset
    owners = [population.participant(shard.participant) for shard, _ in taken]
    copies = [_copies(owner, shard) for owner, (shard, _) in zip(owners, taken, strict=True)]
    protection = owners[0].protection
    sources = [
        np.asarray(population.partitions[owner.id])[owner.originals[rows]]
        for owner, (_, rows) in zip(owners, taken, strict=True)
    ]
    source = torch.from_numpy(np.concatenate(sources))
    originals = _tensor(dataset.train.images[source.numpy()])
    plain = torch.cat([_tensor(c[rows]) for c, (_, rows) in zip(copies, taken, strict=True)])
    public, others = _not_uploaded(population, sample)
    trained = [i for i in members if i not in population.plain] if model is not None else []
    candidates, shown = _candidates(population, source, trained, sample.seed)
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


def _copies(owner: Participant, shard: Shard) -> npt.NDArray[np.uint8]:
    """What an owner protected, if it is what it uploaded: its nonce is a digest of both."""
    copies = owner.copies()
    if owner.nonce(TRAIN, copies).hex() != shard.manifest.nonce:
        raise AttackError(
            f"what participant {owner.id} would upload now is not what it uploaded, so nobody "
            "knows the truth about it any more; is the data set still the same?"
        )
    return copies


def _candidates(
    population: Population, source: Tensor, members: Sequence[int], seed: int
) -> tuple[Labelled, Tensor]:
    """Uploaded images, and where each is shown: those behind the observed uploads, and others of
    these members."""
    train, classes = population.dataset.train, len(population.dataset.classes)
    observed, first = np.unique(source.numpy(), return_index=True)
    shown = [torch.from_numpy(first)]
    chosen = [observed]
    if members:
        every = np.concatenate([population.partitions[i] for i in members])
        rest = _shuffled(np.setdiff1d(every, observed), seed)[: max(0, MEMBERS - len(observed))]
        chosen.append(np.sort(rest))
        shown.append(torch.full((len(rest),), ELSEWHERE))
    rows = np.concatenate(chosen)
    found = Labelled(_tensor(train.images[rows]), _tensor(population.labels[rows]), classes)
    return found, torch.cat(shown)


def _not_uploaded(population: Population, sample: Sample) -> tuple[Labelled | None, Labelled]:
    """Images that nobody uploaded: the attacker's own, and candidates. None of them is a third
    party's. Where labels are shuffled, test images are not among them: theirs are not."""
    train, test = population.dataset.train, population.dataset.test
    owned = np.concatenate([np.asarray(part) for part in population.partitions])
    free = np.setdiff1d(population.available, owned)
    beyond = np.arange(0 if population.scenario.data.shuffle_labels else len(test.labels))
    order = _shuffled(np.concatenate((free, len(train.labels) + beyond)), sample.seed)
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
