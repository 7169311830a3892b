"""From a scenario to what each side of it is given, with every problem found on the way."""

from collections.abc import Iterable

from clients.simulated import Population
from fedenc import models
from fedenc.data import NAMES
from fedenc.data.augment import AUGMENTATIONS
from fedenc.errors import CipherError, DataError, FedencError, ScenarioError, TrainingError
from fedenc.scenario import ProviderView, Scenario
from fedenc.scenario.sections import PLAIN
from fedenc.transformation.bundle import Transformation
from server.recipe import network, server_method, training_config
from simulations import engine, third_party
from simulations.secret import simulation_seed


def settle(scenario: Scenario) -> Scenario:
    """Fill in what a run needs and a scenario may leave open: the seed of the simulated keys, and
    the kinds of query where the cipher changes the shape of images, so that plain ones do not fit.
    """
    scenario = third_party.settle(scenario)
    encryption, inference = scenario.encryption, scenario.inference
    if encryption.seed is None:
        encryption = encryption.model_copy(update={"seed": simulation_seed()})
    if inference.queries is None and _reshapes(scenario):
        left = tuple(c for c in scenario.conditions() if c != PLAIN)
        inference = inference.model_copy(update={"queries": left})
    return scenario.model_copy(update={"encryption": encryption, "inference": inference})


def _reshapes(scenario: Scenario) -> bool:
    """Whether ciphertexts have another shape; False where :func:`check` will find it impossible."""
    if scenario.encryption.keyless:
        return False
    population = Population(scenario)
    try:
        original = _shape(population)
        return population.cipher.output_shape(*original) != original
    except FedencError:
        return False


def _shape(population: Population) -> tuple[int, int, int]:
    channels, height, width = population.dataset.train.images.shape[1:]
    return int(channels), int(height), int(width)


def check(scenario: Scenario) -> None:
    """Find all that is wrong with a settled scenario before anything is started.

    Raises:
        ScenarioError: with every problem found: unknown cipher, model or data set, parameters that
            do not fit, more participants than images, a GPU that is not there.
        DataError: the data cannot be read.
        TransformationError: a bundle that does not fit the data.
    """
    problems = engine.check(scenario)
    if scenario.data.name not in NAMES:
        problems.append(f"data.name = {scenario.data.name!r}; known are {', '.join(NAMES)}")
    if scenario.uploads and scenario.model.name not in models.names():
        known = ", ".join(models.names())
        problems.append(f"model.name = {scenario.model.name!r}; known are {known}")
    problems += [*_augmentation_problems(scenario), *_view_problems(scenario)]
    awaited = scenario.encryption.keyless and scenario.transformation.bundle is None
    if awaited:
        problems += _third_party_problems(scenario)
    population = Population(scenario)
    cipher = None
    try:
        cipher = None if awaited else population.cipher
    except CipherError as error:
        problems.append(f"encryption: {error}")
    if problems:
        raise ScenarioError(problems)
    original = _shape(population)
    try:
        population.partitions  # noqa: B018  (finds more participants than images)
        shape = cipher.output_shape(*original) if cipher is not None else original
    except (DataError, CipherError) as error:
        raise ScenarioError(str(error)) from None
    if shape != original and (scenario.clients.plain_fraction or PLAIN in scenario.conditions()):
        raise ScenarioError(
            f"encryption.cipher = {scenario.encryption.cipher!r} turns {original} images into "
            f"{shape}, so one model cannot take both: leave 'plain' out of inference.queries and "
            "set clients.plain_fraction to 0"
        )
    classes = population.dataset.classes
    if isinstance(cipher, Transformation):
        cipher.require_classes(classes)
    if scenario.uploads:
        _check_trainable(scenario, shape, len(classes))


def view(scenario: Scenario) -> ProviderView:
    """What the provider is told of a scenario that :func:`check` found to be in order."""
    population = Population(scenario)
    cipher = population.cipher
    return ProviderView(
        scenario_hash=scenario.hash(),
        seed=scenario.seed,
        participants=scenario.clients.count,
        outsiders=scenario.clients.query_only,
        classes=population.dataset.classes,
        shape=cipher.output_shape(*_shape(population)),
        cipher=cipher.name,
        cipher_params=dict(cipher.params()),
        plain_uploads=bool(population.plain),
        views=scenario.encryption.views,
        augmentation=scenario.augmentation,
        model=scenario.model,
        training=scenario.training,
        conditions=scenario.conditions(),
        flip=scenario.inference.flip,
        server=scenario.server,
        quorum=scenario.quorum(),
    )


def _third_party_problems(scenario: Scenario) -> Iterable[str]:
    """What a third party could not train."""
    try:
        third_party.configuration(scenario)
        third_party.training_config(scenario, scenario.transformation.epochs)
    except TrainingError as error:
        yield f"transformation: {error}"


def _augmentation_problems(scenario: Scenario) -> Iterable[str]:
    """Names that do not exist, and copies where a query can only be one image."""
    for key in ("train", "server", "query"):
        name = getattr(scenario.augmentation, key)
        if name not in AUGMENTATIONS:
            yield f"augmentation.{key} = {name!r}; known are {', '.join(AUGMENTATIONS)}"
        elif key == "query" and AUGMENTATIONS[name].copies > 1:
            yield f"augmentation.query = {name!r} makes several images of a query; use a random one"


def _view_problems(scenario: Scenario) -> Iterable[str]:
    """Views that do not differ: under one key they do only where owners augment at random."""
    encryption, augmentation = scenario.encryption, scenario.augmentation
    if encryption.views == 1 or (encryption.keys == "image" and not encryption.keyless):
        return
    method = AUGMENTATIONS.get(augmentation.train)
    if augmentation.domain != "plain" or method is None or not method.random:
        keys = "no keys" if encryption.keyless else f"encryption.keys = '{encryption.keys}'"
        yield (
            f"encryption.views = {encryption.views}, but with {keys} all views of an image are the "
            "same; set it to 1, use keys = 'image', or have owners augment at random "
            "(augmentation.domain = 'plain', augmentation.train = 'crop-flip')"
        )


def _check_trainable(scenario: Scenario, shape: tuple[int, int, int], classes: int) -> None:
    """Build configuration and network once, so that what does not fit is told before uploads."""
    try:
        method = server_method(scenario.augmentation)
        training_config(scenario.training, scenario.augmentation, method=method)
        network(scenario.model, shape, classes, scenario.seed)
    except TrainingError as error:
        raise ScenarioError(str(error)) from None
