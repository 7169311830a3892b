"""All that can be wrong with a scenario, found before anything is started."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from clients.simulated import Population
from fedenc import ciphers, models
from fedenc.data import NAMES
from fedenc.data.augment import AUGMENTATIONS
from fedenc.errors import CipherError, DataError, FedencError, ScenarioError, TrainingError
from fedenc.models.inputs import KINDS
from fedenc.protection import plain_fits
from fedenc.scenario import Scenario
from fedenc.scenario.sections import PLAIN, TRANSFORMATION
from fedenc.shard import ParamValue
from fedenc.training.recipes import RECIPES
from server.recipe import network, server_method, training_config
from simulations import engine, third_party


def problems(population: Population) -> list[FedencError]:
    """Everything that keeps a settled scenario from being run."""
    found: dict[str, FedencError] = {}
    for check in _CHECKS:
        try:
            found |= {text: ScenarioError(text) for text in check(population)}
        except FedencError as error:
            found.setdefault(str(error), error)
    return list(found.values())


def warnings(population: Population) -> Iterator[str]:
    """What a scenario sets although its method advises against it. It runs: papers measure that."""
    s = population.scenario
    if s.awaits_bundle:
        return
    protection = population.protection(0)
    server = AUGMENTATIONS[server_method(s.augmentation)]
    if s.uploads and (missing := server.missing_from(protection.augmentations)):
        tolerated = ", ".join(protection.augmentations) or "nothing"
        yield (
            f"augmentation.server = {s.augmentation.server!r} has the server do "
            f"{', '.join(missing)} to ciphertexts, but {protection.name!r} tolerates {tolerated}: "
            "expect a low accuracy; leave the setting out to do what it tolerates"
        )
    if protection.policies and protection.policy not in protection.policies:
        yield (
            f"encryption.keys = {protection.policy!r}, but {protection.name!r} is made for "
            f"{', '.join(protection.policies)}"
        )


def unknown_names(values: Mapping[str, Any]) -> Iterator[str]:
    """Names in plain values, valid or not, that no registry knows."""
    for section, key, known in (
        ("data", "name", NAMES),
        ("encryption", "cipher", (*ciphers.names(), TRANSFORMATION)),
        ("model", "name", models.names()),
        ("model", "input", KINDS),
        ("model", "compare", KINDS),
        ("training", "recipe", tuple(RECIPES)),
        ("transformation", "classifier", models.names()),
        ("transformation", "recipe", tuple(RECIPES)),
        ("transformation", "augmentation", tuple(AUGMENTATIONS)),
        *(("augmentation", key, tuple(AUGMENTATIONS)) for key in ("train", "server", "query")),
    ):
        part = values.get(section)
        found = part.get(key) if isinstance(part, Mapping) else None
        for name in found if isinstance(found, list | tuple) else (found,):
            if isinstance(name, str) and name not in known:
                yield f"{section}.{key} = {name!r}; known are {', '.join(known)}"


def _names(population: Population) -> Iterable[str]:
    return unknown_names(population.scenario.dump(secret=False))


def _machine(population: Population) -> Iterable[str]:
    return engine.check(population.scenario)


def _queries(population: Population) -> Iterator[str]:
    """An augmentation that makes copies, although a query is only one image."""
    name = population.scenario.augmentation.query
    if name in AUGMENTATIONS and AUGMENTATIONS[name].copies > 1:
        yield f"augmentation.query = {name!r} makes several images of a query; use a random one"


def _views(population: Population) -> Iterator[str]:
    """Views that are all the same: without own keys, only random augmentation of each makes them
    differ."""
    encryption, augmentation = population.scenario.encryption, population.scenario.augmentation
    if encryption.views == 1 or (encryption.keys == "image" and not encryption.keyless):
        return
    method = AUGMENTATIONS.get(augmentation.train)
    differ = method is not None and method.random and not augmentation.shared
    if augmentation.domain != "plain" or not differ:
        keys = "no keys" if encryption.keyless else f"encryption.keys = '{encryption.keys}'"
        yield (
            f"encryption.views = {encryption.views}, but with {keys} all views of an image are the "
            "same; set it to 1, use keys = 'image', or have owners augment at random "
            "each view (augmentation.domain = 'plain', .train = 'crop-flip', .shared = false)"
        )


def _third_party(population: Population) -> Iterator[str]:
    """What a third party cannot train, or has trained for other classes."""
    s = population.scenario
    if s.encryption.keyless and not s.awaits_bundle and _known(s, "data"):
        population.network.require_classes(population.dataset.classes)
    if not s.awaits_bundle or not _known(s, "transformation"):
        return
    try:
        s.transformation.config()
        for classifier in (False, True):
            third_party.training_config(s, classifier=classifier)
    except TrainingError as error:
        yield f"transformation: {error}"


def _partitions(population: Population) -> Iterator[str]:
    """More participants than images."""
    if not _known(population.scenario, "data"):
        return
    population.dataset  # noqa: B018  (data that cannot be read is an error of its own)
    try:
        population.partitions  # noqa: B018
    except DataError as error:
        yield str(error)


def _shapes(population: Population) -> Iterator[str]:
    """A method that cannot encrypt the images, or gives them another shape than plain ones."""
    s = population.scenario
    if not _known(s, "encryption") or s.awaits_bundle:
        return
    try:
        protection = population.protection(0)
        if not _known(s, "data"):
            return
        original = population.dataset.shape
        shape = protection.output_shape(*original)
    except CipherError as error:
        yield f"encryption: {error}"
        return
    wanted = s.clients.plain_fraction or PLAIN in s.conditions()
    if wanted and not plain_fits(protection, original):
        yield (
            f"encryption.cipher = {s.encryption.cipher!r} turns {original} images into {shape}, so "
            "one model cannot take both, as the cipher gives plain images no layout of that shape: "
            "leave 'plain' out of inference.queries and set clients.plain_fraction to 0"
        )


def _training(population: Population) -> Iterator[str]:
    """Builds configuration and network once, to find what does not fit before uploads."""
    s = population.scenario
    if not s.uploads or not _known(s, "model", "training", "augmentation", "data", "encryption"):
        return
    try:
        shape, params = population.dataset.shape, dict[str, ParamValue]()
        if not s.awaits_bundle:
            protection = population.protection(0)
            shape, params = protection.output_shape(*shape), protection.params()
    except FedencError:  # said by other checks
        return
    try:
        training_config(s.training, s.augmentation, method=server_method(s.augmentation))
        for model in s.model.variants():
            network(
                model,
                shape,
                len(population.dataset.classes),
                s.seed,
                cipher=s.encryption.cipher,
                cipher_params=params,
            )
    except TrainingError as error:
        yield str(error)


def _known(scenario: Scenario, *sections: str) -> bool:
    """Whether the names in these sections are all known."""
    values = scenario.dump(secret=False)
    return next(unknown_names({section: values[section] for section in sections}), None) is None


_CHECKS: tuple[Callable[[Population], Iterable[str]], ...] = (
    _machine,
    _names,
    _queries,
    _views,
    _third_party,
    _partitions,
    _shapes,
    _training,
)
