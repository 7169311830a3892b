"""Draws the pictures of the README and of ``docs/orbits.md``: ``python docs/figures.py``.

One photograph, its encryption under a key of its own, and what anyone can compute from the
encryption without a key.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage import data

from fedenc.ciphers import make
from fedenc.images import sheets
from fedenc.keys import KeyRing

HERE = Path(__file__).parent


def observer() -> None:
    """``observer.png``: plain, NP, NP+CS, and the fold of the latter."""
    plain = np.ascontiguousarray(data.chelsea()[20:280, 60:380])
    images = torch.from_numpy(plain.transpose(2, 0, 1).copy())[None]
    ring = KeyRing(bytes(range(32)))  # for a picture only: anyone can read this key
    stream = ring.keystream(
        method="pixel", policy="image", purpose="file", nonce=bytes(16), ids=np.zeros(1, np.int64)
    )
    encrypted = [
        make("pixel", color_shuffle=shuffle).encrypt(images, stream)[0].permute(1, 2, 0).numpy()
        for shuffle in (False, True)
    ]
    fold = np.abs(2 * encrypted[1].astype(np.int16) - 255)  # 2·|p − 127.5|, blind to NP
    seen = np.sort(fold, axis=2).astype(np.uint8)  # sorted over components: blind to CS too
    panels = {
        "the image": plain,
        "NP, its own key": encrypted[0],
        "NP + CS, its own key": encrypted[1],
        "what anyone sees in it": seen.mean(axis=2).astype(np.uint8),
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 2.9), layout="constrained")
    for axis, (title, picture) in zip(axes, panels.items(), strict=True):
        axis.imshow(picture, cmap="gray" if picture.ndim == 2 else None, interpolation="nearest")
        axis.set_title(title, fontsize=12)
        axis.axis("off")
    figure.savefig(HERE / "observer.png", dpi=100)


METHODS = ("pixel", "etc", "etc-gray", "scramble", "le", "ele")
SIDE = 96  # pixels


def orbits() -> None:
    """``images/orbits.png``: for every method two ciphertexts of one image under different keys,
    and the canonical form of either, computed without a key."""
    photo = sheets.picture(torch.from_numpy(data.chelsea()[20:276, 60:316].transpose(2, 0, 1)))
    plain = sheets.tensor(photo.resize((SIDE, SIDE)))[None]
    ring = KeyRing(bytes(range(32)))  # for a picture only: anyone can read this key
    rows = []
    for name in METHODS:
        cipher = make(name)
        stream = ring.keystream(
            method=name, policy="image", purpose="file", nonce=bytes(16), ids=np.arange(2)
        )
        found = cipher.encrypt(plain.expand(2, -1, -1, -1), stream)
        forms = cipher.canonical(found)
        assert forms is not None
        assert torch.equal(forms[0], forms[1])
        assert torch.equal(forms[:1], cipher.canonical(cipher.layout(plain)))
        shown = [cipher.layout(plain)[0], found[0], found[1], forms[0]]
        rows.append(sheets.Row(name, shown, ["layout", "one key", "another key", "canonical form"]))
    sheets.grid(rows, cell=2 * SIDE).save(HERE / "images" / "orbits.png", optimize=True)


if __name__ == "__main__":
    observer()
    orbits()
