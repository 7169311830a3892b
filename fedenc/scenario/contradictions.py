"""Values of a scenario that contradict each other."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fedenc.orbits import FORMLESS
from fedenc.scenario.sections import (
    FOREIGN,
    PLAIN,
    SAME_KEY,
    TRANSFORMATION,
    Encryption,
    Transformation,
)

if TYPE_CHECKING:
    from fedenc.scenario import Scenario


def contradictions(s: "Scenario") -> Iterable[str]:
    """Problems that no single key has on its own."""
    same_key, keyless = SAME_KEY in s.conditions(), s.encryption.keyless
    if same_key and not keyless and s.encryption.keys == "image":
        yield (
            "inference.queries asks for same-key queries, but under encryption.keys = 'image' no "
            "two images share a key; use keys = 'same' or 'client', or leave same-key out"
        )
    if s.encryption.cipher == "none" and set(s.conditions()) != {PLAIN}:
        yield "inference.queries asks for encrypted queries, but encryption.cipher is 'none'"
    if len(set(s.conditions())) != len(s.conditions()):
        yield f"inference.queries names a condition twice: {list(s.conditions())}"
    if reason := unsuitable(s.model.input, s.encryption):
        yield f"model.input = '{s.model.input}' {reason}"
    if s.inference.queries == ():
        yield "inference.queries is empty; name a kind of query, or leave it out to send all kinds"
    yield from _without_keys(s)
    if s.server.min_clients is not None and s.server.min_clients > s.clients.count:
        yield (
            f"server.min_clients = {s.server.min_clients} can never be reached with clients.count "
            f"= {s.clients.count}"
        )
    if (s.training.batch_size or s.server.workers) < s.server.workers:
        yield (
            f"training.batch_size = {s.training.batch_size} leaves some of server.workers = "
            f"{s.server.workers} without an image; raise it or use fewer workers"
        )
    if s.engine.machines is not None and s.engine.address is None:
        yield (
            f"engine.machines = {s.engine.machines} means machines of an existing Ray cluster; set "
            "engine.address, or leave it out"
        )
    if (faulty := sum(s.faults.counts().values())) > s.clients.count:
        yield f"faults strike {faulty} participants, but clients.count is {s.clients.count}"


def unsuitable(stage: str, encryption: Encryption) -> str | None:
    """Why an input stage does not go with a cipher, as the end of a sentence; None if it does."""
    if stage == "invariant" and (encryption.keyless or encryption.cipher in FORMLESS):
        return (
            f"is the cipher's canonical form, but encryption.cipher = '{encryption.cipher}' has "
            "none; use model.input = 'raw' or another cipher"
        )
    if stage == "invariant-np" and encryption.cipher not in ("pixel", "none"):
        return (
            f"undoes NP only, but encryption.cipher is '{encryption.cipher}'; use model.input = "
            "'invariant'"
        )
    shuffled = encryption.cipher == "pixel" and encryption.color_shuffle is not False
    if stage == "invariant-np" and shuffled:
        return (
            "undoes NP only, but colours are shuffled too; set encryption.color_shuffle = false or "
            "use model.input = 'invariant'"
        )
    return None


def _without_keys(s: "Scenario") -> Iterable[str]:
    """Problems of a scenario with the shared transformation network, or of one without."""
    if not s.encryption.keyless:
        if FOREIGN in s.conditions():
            yield (
                "inference.queries asks for foreign queries, which only encryption.cipher = "
                f"'{TRANSFORMATION}' has; found '{s.encryption.cipher}'"
            )
        if s.transformation != Transformation():
            yield (
                f"the section transformation is set, but encryption.cipher is "
                f"'{s.encryption.cipher}'; set it to '{TRANSFORMATION}', or leave the section out"
            )
        return
    if SAME_KEY in s.conditions():
        yield f"inference.queries asks for same-key queries, but '{TRANSFORMATION}' has no keys"
    if FOREIGN in s.conditions() and not s.has_foreign:
        yield (
            "inference.queries asks for foreign queries; expected transformation.answers = "
            "'third-party' and transformation.foreign = true"
        )
    if unwanted := sorted(s.encryption.parameters()):
        yield (
            f"encryption sets {', '.join(unwanted)}, which '{TRANSFORMATION}' does not have; its "
            "parameters are in the section transformation"
        )
    if s.transformation.digest is not None and s.transformation.bundle is None:
        yield (
            "transformation.digest is the digest of a network that is trained already; set "
            "transformation.bundle to its folder"
        )
    if s.transformation.method == "gan" and s.transformation.learning_rate is not None:
        yield "transformation.learning_rate is the U-Net's; method 'gan' has its own: leave it out"
    if not s.uploads and s.data.shuffle_labels:
        yield (
            "transformation.answers = 'third-party' trains no model on uploads, but "
            "data.shuffle_labels is set; leave it out, or set transformation.answers to 'central'"
        )
    if not s.uploads and (s.clients.plain_fraction or any(s.faults.counts().values())):
        yield (
            "transformation.answers = 'third-party' needs no uploads, but clients.plain_fraction "
            "or faults concern them; set both to 0, or transformation.answers to 'central'"
        )
