"""One experiment: a scenario settled and checked once, and what each side gets to know."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from clients.simulated import Population, shared_network
from fedenc.data.augment import strongest
from fedenc.errors import FedencError, ScenarioError
from fedenc.protection import Network, Protection, plain_fits
from fedenc.scenario import ProviderView, Scenario
from fedenc.scenario.contradictions import unsuitable
from fedenc.scenario.sections import PLAIN, Section
from fedenc.transformation.bundle import Transformation
from server.app import Event, Given
from simulations import checks, third_party
from simulations.secret import simulation_seed

OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Experiment:
    """A scenario in which nothing is left open, and what follows from it. See :func:`prepare`.

    Attributes:
        name: the preset's or file's, for people.
        scenario: settled: every default that depends on something else is written out.
        population: who takes part.
        warnings: what the scenario sets although its method advises against it.
    """

    name: str
    scenario: Scenario
    population: Population = field(repr=False, compare=False)
    warnings: tuple[str, ...] = ()

    @cached_property
    def provider_view(self) -> ProviderView:
        """What the provider is told. If the run trains a network, that must have been done."""
        s, dataset = self.scenario, self.population.dataset
        protection = self.population.protection(0)
        return ProviderView(
            scenario_hash=s.hash(),
            seed=s.seed,
            participants=s.clients.count,
            outsiders=s.clients.query_only,
            classes=dataset.classes,
            shape=protection.output_shape(*dataset.shape),
            cipher=protection.name,
            cipher_params=protection.params(),
            plain_uploads=bool(self.population.plain),
            views=s.encryption.views,
            augmentation=s.augmentation,
            model=s.model,
            training=s.training,
            conditions=s.conditions(),
            flip=s.inference.flip,
            server=s.server,
            quorum=s.quorum(),
        )

    @cached_property
    def given(self) -> Given | None:
        """Classifiers that the third party gives to the provider; None if that trains its own."""
        return third_party.given(self.scenario)

    def in_words(self) -> str:
        """How images are protected, for people."""
        s, protection = self.scenario, self.population.protection(0)
        views = f", {s.encryption.views} views of each" if s.encryption.views > 1 else ""
        simulated = " (simulated keys)" if protection.policy else ""
        return f"{protection}{views}{simulated}"

    def with_seed(self, seed: int | str) -> "Experiment":
        """The same under the simulated keys of another seed."""
        scenario = _changed(self.scenario, "encryption", seed=seed)
        return replace(
            self, scenario=scenario, population=Population(scenario, self.population.given)
        )

    def with_bundle(self, folder: Path) -> "Experiment":
        """The same with the transformation network of a bundle that is, or will be, there."""
        scenario = third_party.with_bundle(self.scenario, folder)
        return replace(self, scenario=scenario, population=Population(scenario))


def prepare(scenario: Scenario, name: str = "scenario") -> Experiment:
    """Settle a scenario and find all that is wrong with it before anything is started.

    Raises:
        ScenarioError: with every problem found: an unknown name, parameters that do not fit, more
            participants than images, a GPU that is not there.
        DataError: the data cannot be read, and nothing else is wrong.
        TransformationError: the bundle is missing, damaged, or does not fit.
        KeyfileError: this machine's seed of simulated keys cannot be read.
    """
    population = settle(scenario)
    problems = checks.problems(population)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ScenarioError(map(str, problems))
    cipher = scenario.encryption.cipher
    left_out = [
        f"model.compare = '{stage}' is left out, because it does not suit the cipher {cipher!r}"
        for stage in scenario.model.compare
        if unsuitable(stage, scenario.encryption)
    ]
    warnings = (*left_out, *checks.warnings(population))
    return Experiment(name, population.scenario, population, warnings)


def settle(scenario: Scenario) -> Population:
    """The population of a scenario whose open values are written out; nothing is checked.

    Raises:
        ScenarioError: it contradicts the bundle that it names.
        TransformationError: the bundle is missing or damaged.
        KeyfileError: as ``prepare``.
    """
    network = None
    if scenario.encryption.keyless and not scenario.awaits_bundle:
        network = shared_network(scenario)
        scenario = third_party.settle(scenario, network)
    return Population(_settled(scenario, network), network)


def _settled(scenario: Scenario, network: Transformation | None) -> Scenario:
    """Write out what a scenario may leave open and its method decides. If the method cannot be
    used, the checks will say why."""
    if scenario.encryption.seed is None:
        scenario = _changed(scenario, "encryption", seed=simulation_seed(scenario.hash()))
    model, encryption = scenario.model, scenario.encryption
    further = (m.input for m in model.variants()[1:] if not unsuitable(m.input, encryption))
    scenario = _changed(scenario, "model", compare=tuple(further) if scenario.uploads else ())
    population = Population(scenario, network)
    try:
        protection = None if scenario.awaits_bundle else population.protection(0)
    except FedencError:
        return scenario
    if scenario.augmentation.server is None:
        tolerated = Network.augmentations if protection is None else protection.augmentations
        scenario = _changed(scenario, "augmentation", server=strongest(tolerated))
    if protection is None:
        return scenario
    chosen = "keys" in scenario.encryption.model_fields_set
    if not chosen and protection.policies and protection.policy not in protection.policies:
        scenario = _changed(scenario, "encryption", keys=protection.policies[0])
    if scenario.inference.queries is None and not _takes_plain(population, protection):
        left = tuple(c for c in scenario.conditions() if c != PLAIN)
        scenario = _changed(scenario, "inference", queries=left)
    return scenario


def _changed(scenario: Scenario, section: str, **values: object) -> Scenario:
    before: Section = getattr(scenario, section)
    return scenario.model_copy(update={section: before.model_copy(update=values)})


def _takes_plain(population: Population, protection: Protection) -> bool:
    """Whether plain queries fit the model; True if images cannot be protected at all, which the
    checks report."""
    try:
        return plain_fits(protection, population.dataset.shape)
    except FedencError:
        return True
