"""The settings of a transformation network: their ranges, and the scenario's section of them."""

import dataclasses

import pytest

from fedenc.errors import TrainingError
from fedenc.scenario.sections import Transformation
from fedenc.transformation.config import TransformationConfig


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("method", "vae", "method is 'vae'; expected one of unet, gan"),
        ("alpha", -0.1, "alpha is -0.1; expected 0 or more"),
        ("alpha", float("nan"), "alpha is nan"),
        ("widths", (64,), r"widths is \(64,\); expected two or more"),
        ("widths", (64, 0), "two or more positive whole numbers"),
        ("features", "vgg19", "features is 'vgg19'; expected one of vgg16-relu2_2"),
        ("classifier", "alexnet", "classifier is 'alexnet'; expected one of resnet20"),
    ],
)
def test_a_configuration_out_of_range_is_refused(field, value, message):
    with pytest.raises(TrainingError, match=message):
        TransformationConfig(**{field: value})


def test_all_problems_are_told_at_once_and_a_folder_is_not_told():
    with pytest.raises(TrainingError, match=r"alpha is -1.*features"):
        TransformationConfig(alpha=-1, features="x")
    with pytest.raises(TrainingError, match="none with features"):
        TransformationConfig(features="classifier", feature_weights="vgg.pth")
    config = TransformationConfig(feature_weights="/home/me/vgg.pth")
    assert config.as_dict()["feature_weights"] == "vgg.pth"
    assert TransformationConfig(**TransformationConfig().as_dict() | {"widths": (1, 2)})


def test_a_scenario_has_all_settings_with_the_same_defaults():
    assert Transformation().config() == TransformationConfig()
    chosen = {
        "method": "gan",
        "alpha": 0.5,
        "widths": (3, 5),
        "features": "classifier",
        "feature_weights": None,
        "classifier": "fast",
        "foreign": False,
    }
    assert chosen.keys() == {field.name for field in dataclasses.fields(TransformationConfig)}
    assert Transformation(**chosen).config() == TransformationConfig(**chosen)


def test_what_a_scenario_changes_of_the_recipe():
    section = Transformation(epochs=3, classifier_epochs=5, learning_rate=0.2, validation=0.3)
    shared = {"augmentation": "crop-flip", "validation": 0.3}
    assert section.changes() == shared | {"epochs": 3, "learning_rate": 0.2}
    assert section.changes(classifier=True) == shared | {"epochs": 5}
    assert Transformation().changes() == {"augmentation": "crop-flip"}
