"""Who may import what, as it shows in a fresh process: transitively, whatever the source says."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEYS = ("fedenc.keys", "fedenc.ciphers")
BARE = (
    "torch",
    "torchvision",
    "numpy",
    "scikit-image",
    "pyarrow",
    "Pillow",
    "safetensors",
    "torchmetrics",
    "cryptography",
)  # what a bare GPU machine has, besides what these bring
NEED_MORE = ("fedenc.scenario", "fedenc.cli", "fedenc.wire")

_MODULES = '''
import importlib, json, pkgutil, sys

def modules(package):
    found = importlib.import_module(package)
    yield package
    for info in pkgutil.walk_packages(found.__path__, package + "."):
        yield info.name

class Without:
    """A finder that does not find some packages, as if they were not installed."""

    def __init__(self, finder, names):
        self.finder, self.names = finder, frozenset(names)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

def hide(names):
    sys.meta_path[:] = [Without(finder, names) for finder in sys.meta_path]
'''

_NOT_BARE = """
from importlib.metadata import distribution, packages_distributions, PackageNotFoundError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

reached, waiting = set(), list(BARE)
while waiting:
    name = canonicalize_name(waiting.pop())
    if name in reached:
        continue
    reached.add(name)
    try:
        needed = map(Requirement, distribution(name).requires or ())
    except PackageNotFoundError:  # for another platform
        continue
    waiting += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
others = {
    module
    for module, owners in packages_distributions().items()
    if not reached & set(map(canonicalize_name, owners))
} - {"fedenc", "clients", "server", "simulations"} - set(sys.stdlib_module_names)
"""


def fresh(code: str) -> list[str]:
    """Run code in a new process; the names it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", _MODULES + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return names


def loaded_by(*packages: str) -> list[str]:
    """All modules that are loaded after every module of the packages was."""
    return fresh(
        f"for package in {packages!r}:\n"
        "    for name in modules(package):\n"
        "        importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )


def within(names: list[str], *packages: str) -> list[str]:
    return [n for n in names if any(n == p or n.startswith(p + ".") for p in packages)]


def test_the_provider_reaches_no_key_no_cipher_and_no_participant() -> None:
    names = loaded_by("server")
    assert "server.trainer" in names
    assert within(names, *KEYS, "clients", "simulations") == []


def test_canonical_forms_of_built_in_ciphers_reach_no_key_and_no_cipher() -> None:
    """Only the form of a plug-in is looked up where ciphers are."""
    names = fresh(
        "from fedenc import orbits\n"
        "params = {'color_shuffle': True, 'block_size': 4}\n"
        "for name in ('none', 'pixel', 'etc', 'etc-gray', 'scramble', 'le', 'ele'):\n"
        "    assert orbits.canonical(name, params)\n"
        "assert orbits.canonical('logistic-rc4', {}) is None\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    assert within(names, *KEYS) == []


def test_participants_reach_neither_provider_nor_ray() -> None:
    names = loaded_by("clients")
    assert "clients.participant" in names
    assert within(names, "server", "simulations", "ray") == []


def test_shared_modules_reach_no_key() -> None:
    names = fresh(
        "import fedenc.shard, fedenc.scenario, fedenc.wire\nprint(json.dumps(sorted(sys.modules)))"
    )
    assert within(names, *KEYS, "torch", "ray") == []


def test_the_library_needs_only_what_a_bare_machine_has() -> None:
    """And its parts for training, models and data reach no key and no cipher."""
    names = fresh(
        f"BARE, NEED_MORE = {BARE!r}, {NEED_MORE!r}\n{_NOT_BARE}\n"
        "assert {'flwr', 'ray', 'pydantic', 'typer', 'rich', 'matplotlib'} <= others\n"
        "hide(others)\n"
        "for package in ('fedenc.training', 'fedenc.models', 'fedenc.data', 'fedenc'):\n"
        "    for name in modules(package):\n"
        "        if name not in NEED_MORE:\n"
        "            importlib.import_module(name)\n"
        "    if package == 'fedenc.data':  # all that the provider may use has been loaded\n"
        f"        assert not {KEYS!r}[0] in sys.modules and not {KEYS!r}[-1] in sys.modules\n"
        "import numpy as np, torch\n"
        "from fedenc import ciphers, models\n"
        "from fedenc.keys import KeyRing, new_nonce\n"
        "images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)\n"
        "stream = KeyRing.generate().keystream(method='pixel', policy='image', purpose='train',\n"
        "                                      nonce=new_nonce(), ids=np.arange(2))\n"
        "assert ciphers.make('pixel').encrypt(images, stream).shape == images.shape\n"
        "assert models.names()\n"
        "print(json.dumps(sorted(n for n in sys.modules if n.partition('.')[0] in others)))"
    )
    assert names == []


def test_scenarios_and_commands_need_neither_flower_nor_ray() -> None:
    names = fresh(
        "hide(['flwr', 'ray'])\n"
        "import fedenc.scenario, fedenc.cli\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    assert within(names, "flwr", "ray", "clients", "server", "simulations") == []


def test_the_package_itself_loads_nothing_heavy() -> None:
    names = fresh(
        "import fedenc, fedenc.errors\n"
        "assert fedenc.__version__\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    heavy = ("torch", "numpy", "pydantic", "flwr", "ray", "pyarrow", "PIL", "skimage")
    assert within(names, *heavy) == []


def test_a_simulation_starts_without_what_only_some_need() -> None:
    names = fresh("import simulations.run\nprint(json.dumps(sorted(sys.modules)))")
    assert within(names, "torch")
    assert within(names, "torchvision", "matplotlib", "skimage", "ray.train") == []
