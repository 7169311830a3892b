"""From a scenario to what each side of it is given, with every problem found on the way."""

from collections.abc import Iterable

from clients.simulated import Population
from fedenc import models
from fedenc.data import NAMES
from fedenc.data.augment import AUGMENTATIONS
from fedenc.errors import CipherError, DataError, FedencError, ScenarioError, TrainingError
from fedenc.scenario import PLAIN, ProviderView, Scenario
from server.recipe import server_method, training_config
from simulations import engine
from simulations.secret import simulation_seed


def settle(scenario: Scenario) -> Scenario:
    """Fill in what a run needs and a scenario may leave open: the seed of the simulated keys, and
    the kinds of query where the cipher changes the shape of images, so that plain ones do not fit.
    """
    encryption, inference = scenario.encryption, scenario.inference
    if encryption.seed is None:
        encryption = encryption.model_copy(update={"seed": simulation_seed()})
    if inference.queries is None and _reshapes(scenario):
        left = tuple(c for c in scenario.conditions() if c != PLAIN)
        inference = inference.model_copy(update={"queries": left})
    return scenario.model_copy(update={"encryption": encryption, "inference": inference})


def _reshapes(scenario: Scenario) -> bool:
    """Whether ciphertexts have another shape; False where :func:`view` will find it impossible."""
    population = Population(scenario)
    try:
        original = _shape(population)
        return population.cipher.output_shape(*original) != original
    except FedencError:
        return False


def _shape(population: Population) -> tuple[int, int, int]:
    channels, height, width = population.dataset.train.images.shape[1:]
    return int(channels), int(height), int(width)


def view(scenario: Scenario) -> ProviderView:
    """What the provider is told, and a check of all that the scenario names.

    Raises:
        ScenarioError: with every problem found: unknown cipher, model or data set, parameters that
            do not fit, more participants than images, a GPU that is not there.
        DataError: the data cannot be read.
    """
    problems = engine.check(scenario)
    if scenario.data.name not in NAMES:
        problems.append(f"data.name = {scenario.data.name!r}; known are {', '.join(NAMES)}")
    if scenario.model.name not in models.names():
        known = ", ".join(models.names())
        problems.append(f"model.name = {scenario.model.name!r}; known are {known}")
    problems += _augmentation_problems(scenario)
    population = Population(scenario)
    try:
        cipher = population.cipher
    except CipherError as error:
        problems.append(f"encryption: {error}")
    if problems:
        raise ScenarioError(problems)
    dataset = population.dataset
    original = _shape(population)
    try:
        population.partitions  # noqa: B018  (finds more participants than images)
        shape = cipher.output_shape(*original)
    except (DataError, CipherError) as error:
        raise ScenarioError(str(error)) from None
    if shape != original and (scenario.clients.plain_fraction or PLAIN in scenario.conditions()):
        raise ScenarioError(
            f"cipher {cipher.name} turns {original} images into {shape}, so one model cannot take "
            "both: leave 'plain' out of inference.queries and set clients.plain_fraction to 0"
        )
    _check_trainable(scenario, shape, len(dataset.classes))
    return ProviderView(
        scenario_hash=scenario.hash(),
        seed=scenario.seed,
        participants=scenario.clients.count,
        outsiders=scenario.clients.query_only,
        classes=dataset.classes,
        shape=shape,
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


def _augmentation_problems(scenario: Scenario) -> Iterable[str]:
    """Names that do not exist, and copies where a query can only be one image."""
    for key in ("train", "server", "query"):
        name = getattr(scenario.augmentation, key)
        if name not in AUGMENTATIONS:
            yield f"augmentation.{key} = {name!r}; known are {', '.join(AUGMENTATIONS)}"
        elif key == "query" and AUGMENTATIONS[name].copies > 1:
            yield f"augmentation.query = {name!r} makes several images of a query; use a random one"


def _check_trainable(scenario: Scenario, shape: tuple[int, int, int], classes: int) -> None:
    """Build configuration and network once, so that what does not fit is told before uploads."""
    model = scenario.model
    try:
        method = server_method(scenario.augmentation)
        training_config(scenario.training, scenario.augmentation, method=method)
        models.build(
            model.name,
            channels=shape[0],
            classes=classes,
            size=shape[1:],
            input=model.input,
            adapter=model.adapter,
        )
    except TrainingError as error:
        raise ScenarioError(str(error)) from None
