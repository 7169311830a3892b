"""Simulated data owners: what participant *i* of a scenario owns, holds and does."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clients.faults import Fault, assign
from clients.participant import Labelled, Participant
from fedenc import ciphers
from fedenc.data import Dataset, augment, load
from fedenc.data.partition import dirichlet, iid
from fedenc.errors import DataError, TransformationError
from fedenc.keys import KeyRing
from fedenc.protection import Keyed, Network, Plain, Protection
from fedenc.scenario import Scenario
from fedenc.scenario.sections import ENCRYPTED, FOREIGN, PLAIN, SAME_KEY, Condition
from fedenc.seeding import numpy_generator
from fedenc.shard import UNPROTECTED
from fedenc.transformation import bundle
from fedenc.transformation.share import labels_digest, third_party

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Population:
    """All participants of a scenario, made one at a time. Ids from ``clients.count`` on are
    outsiders, which own no training images."""

    scenario: Scenario
    given: bundle.Transformation | None = None  # the scenario's network, if it is loaded already

    @cached_property
    def dataset(self) -> Dataset:
        """The scenario's data set, memory-mapped."""
        data = self.scenario.data
        return load(
            data.name, root=data.root, size=data.size, download=data.download, count=data.count
        )

    @cached_property
    def partitions(self) -> list[Indices]:
        """Indices of the training images of every uploading participant."""
        clients = self.scenario.clients
        if not self.scenario.uploads:
            return [np.empty(0, np.int64)] * clients.count
        theirs = self.available
        if not len(theirs):
            raise DataError(
                f"the third party's transformation network was trained on all training images of "
                f"{self.dataset.name}, which leaves the participants none; take a bundle with "
                "transformation.fraction below 1, or other data"
            )
        labels = self.dataset.train.labels[theirs]
        if clients.partition == "iid":
            parts = iid(labels, clients.count, seed=self.scenario.seed, cap=clients.images)
        else:
            parts = dirichlet(
                labels,
                clients.count,
                alpha=clients.alpha,
                seed=self.scenario.seed,
                cap=clients.images,
            )
        return [theirs[part] for part in parts]

    @cached_property
    def available(self) -> Indices:
        """Training images that are not the third party's, if there is one."""
        labels = self.dataset.train.labels
        settings = self.scenario.transformation
        if not self.scenario.encryption.keyless:
            return np.arange(len(labels))
        if settings.bundle is None:  # it will be trained on this share
            return third_party(labels, settings.share(), self.scenario.seed)[1]
        data = self.network.info.get("data", {})
        if data.get("name") not in (None, self.dataset.name):
            return np.arange(len(labels))
        if not {"fraction", "seed", "labels"} <= data.keys():
            raise DataError(
                f"the bundle {settings.bundle} does not say on which images it was trained, so "
                "participants could own some of them; take a bundle made by `fedenc transformation "
                "train`"
            )
        if data["labels"] != labels_digest(labels):
            raise DataError(
                f"the bundle {settings.bundle} was trained on another data set that is called "
                f"{self.dataset.name}, and participants may own some of its images; train a bundle "
                "on this one"
            )
        return third_party(labels, data["fraction"], data["seed"])[1]

    @cached_property
    def faults(self) -> dict[int, Fault]:
        """Which participants misbehave, and how."""
        return assign(self.scenario)

    @cached_property
    def plain(self) -> frozenset[int]:
        """Participants that choose to upload plain images."""
        clients = self.scenario.clients
        chosen = numpy_generator(self.scenario.seed, "plain").permutation(clients.count)
        return frozenset(chosen[: round(clients.plain_fraction * clients.count)].tolist())

    @cached_property
    def network(self) -> bundle.Transformation:
        """The shared transformation network.

        Raises:
            TransformationError: it is missing or damaged, or not the one expected.
        """
        return self.given or shared_network(self.scenario)

    @cached_property
    def _cipher(self) -> ciphers.Cipher:
        encryption = self.scenario.encryption
        return ciphers.make(encryption.cipher, **encryption.parameters())

    def protection(self, i: int) -> Protection:
        """How participant ``i`` protects images: the scenario's method under keys of its own.

        Raises:
            CipherError: an unknown cipher, or parameters that do not fit.
            TransformationError: as ``network``.
        """
        encryption = self.scenario.encryption
        if encryption.keyless:
            return Network(self.network)
        if encryption.cipher == UNPROTECTED[0]:
            return Plain()
        return Keyed(self._cipher, self.ring(i), encryption.keys)

    def ring(self, i: int) -> KeyRing:
        """The simulated keys of participant ``i``."""
        encryption = self.scenario.encryption
        if encryption.seed is None:
            raise ValueError("the driver must settle encryption.seed before participants are made")
        return KeyRing.simulated(encryption.seed, i, shared=encryption.keys == "same")

    def hosted_by(self, node: int) -> tuple[int, ...]:
        """Ids of the participants on one Flower node."""
        clients = self.scenario.clients
        first = node * clients.per_node
        return tuple(range(first, min(first + clients.per_node, clients.total)))

    def participant(self, i: int) -> Participant:
        """Participant ``i``: a function of the scenario and ``i`` alone."""
        s = self.scenario
        mine = self.partitions[i] if i < s.clients.count else np.empty(0, np.int64)
        method = self.protection(i)
        return Participant(
            id=i,
            train=Labelled(self.dataset.train.images[mine], self.labels[mine]),
            held_out=self._held_out(i),
            ring=self.ring(i),
            protection=method.plain() if i in self.plain else method,
            query_protection=method,
            views=s.encryption.views,
            augmentation=augment.named(
                s.augmentation.train if s.augmentation.domain == "plain" else "none"
            ),
            query_augmentation=augment.named(s.augmentation.query),
            fill=s.augmentation.fill,
            shared=s.augmentation.shared,
        )

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Of all training images: int64 (N,), shuffled where the scenario says so."""
        labels = self.dataset.train.labels
        if not self.scenario.data.shuffle_labels:
            return labels
        return numpy_generator(self.scenario.seed, "shuffled labels").permutation(labels)

    @property
    def _shared(self) -> list[Condition]:
        """Conditions with the same images as another condition: *encrypted* has those of *plain* if
        they are asked in pairs; *foreign* has those of *encrypted*, to compare classifiers."""
        asked = self.scenario.conditions()
        paired = [ENCRYPTED] if self.scenario.paired else []
        return paired + [FOREIGN] * (FOREIGN in asked and ENCRYPTED in asked)

    @cached_property
    def _test_parts(self) -> dict[Condition, Indices]:
        """Which test images may be asked about under which condition, over all participants.

        A plain query beside a ciphertext of the same image under a key that protects others is a
        known-plaintext pair. So the parts are disjoint over all participants, not only within each;
        only declared pairs share a part, unless the scenario asks for all images in every part.
        """
        kinds = [c for c in self.scenario.conditions() if c not in self._shared]
        order = numpy_generator(self.scenario.seed, "held out").permutation(
            len(self.dataset.test.labels)
        )
        if not self.scenario.inference.disjoint:
            return dict.fromkeys(kinds, order)
        if len(order) < len(kinds):
            raise DataError(
                f"data set {self.dataset.name} has {len(order)} test images, too few for "
                f"{len(kinds)} inference conditions; ask for fewer or use more data"
            )
        return dict(zip(kinds, np.array_split(order, len(kinds)), strict=True))

    @cached_property
    def _queries(self) -> Indices:
        """How many images each participant asks about under each condition."""
        asked, people = self.scenario.inference, self.scenario.clients.total
        if asked.total is None or asked.total >= asked.images * people:
            return np.full(people, asked.images)
        each, more = divmod(asked.total, people)
        luckier = numpy_generator(self.scenario.seed, "more queries").permutation(people)[:more]
        counts = np.full(people, each)
        counts[luckier] += 1
        return counts

    @cached_property
    def _pieces(self) -> dict[Condition, tuple[Indices, Indices]]:
        """For every part, where each participant's piece begins and how many images it has."""
        sizes = {c: np.minimum(self._queries, len(p)) for c, p in self._test_parts.items()}
        return {c: (np.cumsum(found) - found, found) for c, found in sizes.items()}

    def asked(self, i: int) -> dict[Condition, Indices]:
        """Which test images participant ``i`` asks about, by condition, except conditions with the
        images of another: consecutive pieces of each part, starting from its beginning again when
        it is used up."""
        found: dict[Condition, Indices] = {}
        for condition, part in self._test_parts.items():
            if condition == SAME_KEY and (i in self.plain or i >= self.scenario.clients.count):
                continue  # no key of this participant protects training images
            begins, sizes = self._pieces[condition]
            if sizes[i]:  # otherwise others ask instead
                found[condition] = part[(begins[i] + np.arange(sizes[i])) % len(part)]
        return found

    def distinct(self, condition: Condition, participants: Iterable[int]) -> int:
        """How many different test images these participants ask about under a condition."""
        source = self._source if condition in self._shared else condition
        pieces = [self.asked(i).get(source, np.empty(0, np.int64)) for i in participants]
        return len(np.unique(np.concatenate(pieces))) if pieces else 0

    @property
    def _source(self) -> Condition:
        """The condition whose images those of ``_shared`` have."""
        return PLAIN if self.scenario.paired else ENCRYPTED

    def _held_out(self, i: int) -> dict[Condition, Labelled]:
        """This participant's test images by condition."""
        test = self.dataset.test
        held_out = {c: Labelled(test.images[n], test.labels[n]) for c, n in self.asked(i).items()}
        if self._source in held_out:
            held_out |= dict.fromkeys(self._shared, held_out[self._source])
        return held_out


def shared_network(scenario: Scenario) -> bundle.Transformation:
    """The transformation network that a scenario names.

    Raises:
        TransformationError: it is missing or damaged, or not the one expected.
    """
    settings = scenario.transformation
    if settings.bundle is None:
        raise TransformationError(
            "transformation.bundle is not set; expected the folder of a trained bundle: make one "
            "with `fedenc transformation train`"
        )
    found = bundle.load_transformation(Path(settings.bundle))
    if settings.digest not in (None, found.digest):
        raise TransformationError(
            f"the network in {settings.bundle} has SHA-256 {found.digest}; expected "
            f"transformation.digest = {settings.digest}"
        )
    return found
