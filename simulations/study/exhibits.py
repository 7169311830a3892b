"""What a study shows beside a paper: the paper's tables and figures, as its file names them."""

from typing import Any, Literal

from pydantic import Field

from fedenc.scenario.sections import Count, Section

Printed = float | tuple[float, ...]


class Paper(Section):
    """Which paper a study reproduces, at what size, and what is different everywhere."""

    name: str  # by which ``fedenc reproduce`` knows it
    reference: str
    images: Count = 50_000  # training images of all owners together
    queries: Count = 10_000  # test images
    deviations: tuple[str, ...] = ()


class Exhibit(Section):
    """One table or figure.

    Tables have a line for every value of ``panels``, ``rows`` and ``columns``, which are columns of
    the study's table, as are those of ``where``. ``printed`` holds what the paper prints by row and
    column: a number for each of ``measures``, in its own unit.
    """

    name: str  # such as "figure 8"
    caption: str
    kind: Literal["accuracy", "attacks", "boxes", "pictures", "filters", "networks"] = "accuracy"
    rows: str = "variant"
    columns: str | None = None
    panels: str | None = None
    where: dict[str, Any] = Field(default_factory=dict)  # a list of values allows each of them
    measures: tuple[str, ...] = ("accuracy",)
    attacks: tuple[str, ...] = ()  # for boxes and pictures: in this order
    printed: dict[str, dict[str, Printed]] = Field(default_factory=dict)
    needs: tuple[str, ...] = ()  # scenario keys that must be as published for a difference to count
    deviations: tuple[str, ...] = ()
