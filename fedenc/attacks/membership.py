"""Membership inference: was this image among those that the model was trained on?

A model is surer of images that it was trained on than models like it are that were not. The
attacker trains such reference models on public images, and asks them and the attacked model about
each candidate. How he can ask decides what he learns:

* Where there are no keys he asks with the candidate as it is.
* Under independent keys he encrypts it several times under keys of his own, and averages. Such
  models also answer plain images, which are ciphertexts under one particular key.
* Under shared keys he cannot make the ciphertext that the model was trained on. Plain images mean
  nothing to the model. Ciphertexts under keys of his own look like what it knows, and keep what no
  key changes: a little of what it remembers shows. (The uploads themselves need no asking: all are
  members.) Once he has the key, by whichever attack, he can ask as well as anybody can without
  encryption; ``ChosenMembership`` measures that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedenc.attacks import likelihood, shadow
from fedenc.attacks.base import Attack, Cost, Findings, Knowledge, Means, Method, Observation
from fedenc.errors import AttackError
from fedenc.models.network import Network
from fedenc.seeding import generator
from fedenc.shard import UNPROTECTED
from fedenc.training.predict import predict

METHODS = ("rmia", "lira")
QUERIES = ("encrypted", "plain")
POPULATION = 1000  # public images that candidates are compared with, at most
LEAST = 32  # public images to train on
TRAINING = 0.8  # of the work, roughly


@dataclass(frozen=True)
class Membership(Attack):
    """Tells which candidates the model was trained on, by asking it (RMIA or LiRA).

    Args:
        method: "rmia" (Zarifzadeh et al. 2024), which is strong with few reference models, or
            "lira" (Carlini et al. 2022). Both are offline: no reference model sees a candidate.
        queries: "encrypted" (under the attacker's own keys, where there are keys) or "plain".
        references: models to train, at least 2.
        copies: ciphertexts of each candidate that answers are averaged over.
    """

    method: str = "rmia"
    queries: str = "encrypted"
    references: int = 4
    copies: int = 8
    name: ClassVar[str] = "membership"
    source: ClassVar[str] = (
        "Zarifzadeh, Liu & Shokri, ICML 2024 (RMIA); Carlini et al., IEEE S&P 2022 (LiRA)"
    )
    knowledge: ClassVar[frozenset[Knowledge]] = frozenset(
        {Knowledge.PUBLIC, Knowledge.CANDIDATES, Knowledge.CANDIDATE_LABELS, Knowledge.MODEL}
    )
    cost: ClassVar[Cost] = "minutes"

    def __post_init__(self) -> None:
        for name, value, good, expected in (
            ("method", self.method, self.method in METHODS, f"one of {', '.join(METHODS)}"),
            ("queries", self.queries, self.queries in QUERIES, f"one of {', '.join(QUERIES)}"),
            ("references", self.references, self.references >= 2, "at least 2"),
            ("copies", self.copies, self.copies >= 1, "at least 1"),
        ):
            if not good:
                raise AttackError(f"{name} is {value!r}; expected {expected}")

    def unsuitable(self, method: Method) -> str | None:
        if _by_network(method):
            return "asks with images that only the shared network makes (see membership-network)"
        if self.queries == "plain" and not _takes_plain(method):
            return "asks with plain images, but the model takes images of another shape"
        return None

    def run(self, observation: Observation, means: Means) -> Findings:
        public, candidates = observation.public, observation.candidates
        _check(observation)

        def training(done: float, text: str) -> None:
            means.report(TRAINING * done, text)

        references = list(
            shadow.train_references(
                observation.model,
                public,
                lambda images, number: self._protected(observation, images, means.seed, number),
                self.references,
                Means(means.seed, means.device, means.folder, training),
            )
        )
        order = torch.randperm(len(public.images), generator=generator(means.seed, "population"))
        chosen = order[:POPULATION]
        victim, *others = self._answers(
            observation,
            [observation.model.network, *(one.network for one in references)],
            torch.cat((candidates, public.images[chosen])),
            torch.cat((observation.candidate_labels, public.labels[chosen])),
            means,
        )
        asked = torch.stack(others)
        count = len(candidates)
        if self.method == "lira":
            return Findings(members=likelihood.lira(victim[:count], asked[:, :count]))
        unseen = torch.stack([~torch.isin(chosen, one.rows) for one in references])
        a = likelihood.calibrate(asked[:, count:], unseen)
        population = likelihood.ratio(victim[count:], asked[:, count:], unseen, a)
        everywhere = torch.ones(len(references), count, dtype=torch.bool)
        scores = likelihood.ratio(victim[:count], asked[:, :count], everywhere, a)
        return Findings(members=likelihood.rmia(scores, population), facts={"a": a})

    def _protected(
        self, observation: Observation, images: Tensor, seed: int, number: int
    ) -> Tensor:
        """Training images for a reference model."""
        method = observation.method
        owners = observation.model.owners if method.policy == "client" else 1
        return shadow.own_keys(method, images, owners, seed, "reference", number)

    def _queries(
        self, observation: Observation, images: Tensor, seed: int
    ) -> Iterator[Sequence[Tensor]]:
        """What to ask with, one round after another: images for the attacked model, and for each of
        the reference models."""
        method, asked = observation.method, 1 + self.references
        if self.queries == "plain" or method.cipher is None:
            yield [images] * asked
        else:
            for copy in range(self.copies):
                yield [shadow.own_keys(method, images, 1, seed, "query", copy)] * asked

    def _answers(
        self,
        observation: Observation,
        models: Sequence[Network],
        images: Tensor,
        labels: Tensor,
        means: Means,
    ) -> Tensor:
        """What each model thinks of the labels: float64 (models, N), a mean over the rounds."""
        rmia = self.method == "rmia"
        measure = likelihood.confidence if rmia else likelihood.log_odds
        rounds: list[Tensor] = []
        for queries in self._queries(observation, images, means.seed):
            means.report(TRAINING, f"asking about {len(images)} images, round {len(rounds) + 1}")
            found = (
                predict(model, query, device=means.device, precision="fp32")
                for model, query in zip(models, queries, strict=True)
            )
            rounds.append(torch.stack([measure(one, labels) for one in found]))
        means.report(1, f"asked about {len(images)} images")
        return torch.stack(rounds).mean(0)


@dataclass(frozen=True)
class ChosenMembership(Membership):
    """Tells which candidates were trained on, by what an owner's device makes of them (one key)."""

    name: ClassVar[str] = "membership-chosen"
    knowledge: ClassVar[frozenset[Knowledge]] = Membership.knowledge | {Knowledge.CHOSEN}

    def unsuitable(self, method: Method) -> str | None:
        if method.policy != "same":
            return "needs one key that all images share"
        return None

    def _queries(
        self, observation: Observation, images: Tensor, seed: int
    ) -> Iterator[Sequence[Tensor]]:
        owner = int(observation.uploads.owners[0])
        numbers = range(self.references)
        own = [self._protected(observation, images, seed, number) for number in numbers]
        yield [observation.oracle(images, owner), *own]


@dataclass(frozen=True)
class NetworkMembership(Membership):
    """Tells which candidates were trained on, by what the shared network makes of them."""

    name: ClassVar[str] = "membership-network"
    knowledge: ClassVar[frozenset[Knowledge]] = Membership.knowledge | {Knowledge.NETWORK}

    def unsuitable(self, method: Method) -> str | None:
        return None if _by_network(method) else "needs a shared network"

    def _protected(
        self, observation: Observation, images: Tensor, seed: int, number: int
    ) -> Tensor:
        return observation.network.protect(images)

    def _queries(
        self, observation: Observation, images: Tensor, seed: int
    ) -> Iterator[Sequence[Tensor]]:
        yield [observation.network.protect(images)] * (1 + self.references)


def _by_network(method: Method) -> bool:
    return method.cipher is None and method.name != UNPROTECTED[0]


def _takes_plain(method: Method) -> bool:
    """Whether a plain image has the shape of a protected one."""
    return method.cipher is None or method.cipher.output_shape(*method.shape) == method.shape


def _check(observation: Observation) -> None:
    public, classes = observation.public, observation.model.network.architecture.classes
    if len(public.images) < LEAST:
        raise AttackError(
            f"there are {len(public.images)} public images to train reference models on; expected "
            f"at least {LEAST}"
        )
    if public.classes != classes:
        raise AttackError(
            f"public images are of {public.classes} classes; expected the model's {classes}"
        )
    if not len(observation.candidates):
        raise AttackError("there are no candidates; expected at least one")
