"""Errors that a user can cause, and the exit code of each.

Every message says what was wrong, what was found, what was expected and what to do. The command
line prints it as one line and exits with ``exit_code``; a trace is shown only with ``--debug``.
"""

from collections.abc import Iterable


class FedencError(Exception):
    """Base of all errors that a user can cause, as opposed to defects of fedenc."""

    exit_code = 1


class ScenarioError(FedencError):
    """A scenario that cannot be run. ``problems`` holds all problems, not just the first."""

    exit_code = 2

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("; ".join(self.problems))


class DataError(FedencError):
    """Missing, damaged or unusable data: names the file, what was expected and how to get it."""

    exit_code = 3


class KeyfileError(FedencError):
    """A keyfile that is missing, damaged, already there, or not the one that was used."""

    exit_code = 4


class CipherError(FedencError, ValueError):
    """An argument that a cipher cannot use: names the argument, its value and what to do."""

    exit_code = 5


class ShardError(FedencError):
    """An upload whose manifest and bytes disagree, or that the scenario does not allow."""

    exit_code = 6

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("; ".join(self.problems))


class QuorumError(FedencError):
    """Too few participants delivered what the scenario needs."""

    exit_code = 7


class TrainingError(FedencError):
    """Training that cannot start or continue: diverging loss, bad checkpoint, unknown model."""

    exit_code = 8


class EngineError(FedencError):
    """Flower, Ray or the machine cannot run what was asked."""

    exit_code = 9


class TransformationError(FedencError):
    """A transformation bundle that is missing, damaged or does not fit."""

    exit_code = 10


class AttackError(FedencError):
    """An attack that cannot run on what it is given, or knowledge that it did not declare."""

    exit_code = 11
