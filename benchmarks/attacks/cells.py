"""What is attacked: every method under every key policy, and the shared network at each alpha."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

POLICIES = ("image", "client", "same")
KEYED: dict[str, dict[str, Any]] = {
    "pixel-np": {"cipher": "pixel", "color_shuffle": False},
    "pixel": {"cipher": "pixel"},
    "le": {"cipher": "le"},
    "ele": {"cipher": "ele"},
    "etc": {"cipher": "etc"},
    "etc-gray": {"cipher": "etc-gray"},
    "scramble": {"cipher": "scramble"},
    "logistic-rc4": {"cipher": "logistic-rc4"},
}
ALPHAS = (0.005, 0.01, 0.05, 0.1)  # Ito, Kinoshita & Kiya, IEEE Access 2021, Tables 1 and 2
METHODS = (*KEYED, *(f"alpha={alpha:g}" for alpha in ALPHAS), "gan")
_FORMLESS = "logistic-rc4"  # has no canonical form, so no input that its keys cannot change


@dataclass(frozen=True)
class Cell:
    """One method under one key policy; without a policy where there are no keys."""

    method: str
    keys: str | None

    @property
    def name(self) -> str:
        return self.method if self.keys is None else f"{self.method}_{self.keys}"

    def scenario(self, settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The cell's scenario: the settings of all cells, and its own method."""
        sections = {name: dict(values) for name, values in settings.items()}
        if self.keys is not None:
            sections["encryption"] = KEYED[self.method] | {"keys": self.keys}
            if self.method != _FORMLESS:
                sections["model"]["compare"] = ["invariant"]
            del sections["transformation"]
            return sections
        sections["encryption"] = {"cipher": "transformation"}
        own = sections["transformation"]
        if self.method == "gan":
            own["method"] = "gan"
        else:
            own["alpha"] = float(self.method.partition("=")[2])
        return sections


def cells(methods: Sequence[str], policies: Sequence[str]) -> Iterator[Cell]:
    """All cells of these methods and policies."""
    for method in methods:
        if method in KEYED:
            yield from (Cell(method, policy) for policy in policies)
        else:
            yield Cell(method, None)
