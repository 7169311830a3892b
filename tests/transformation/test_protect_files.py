"""Image files through the shared network: what fits is written, what does not is named."""

from pathlib import Path

import pytest
import torch

from fedenc.errors import DataError
from fedenc.images import lossless
from fedenc.transformation.bundle import Transformation, build, save_transformation
from fedenc.transformation.files import protect


@pytest.fixture
def network(tmp_path: Path) -> Transformation:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = build("unet", {"widths": [4, 8]})
    return save_transformation(
        tmp_path / "bundle",
        made,
        method="unet",
        architecture={"widths": [4, 8]},
        size=(8, 8),
        classes=("a", "b"),
        info={"data": {}},
    )


def image(seed: int, side: int = 8, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (channels, side, side)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def test_every_file_that_fits_is_protected(tmp_path: Path, network: Transformation) -> None:
    source, target = tmp_path / "plain", tmp_path / "protected"
    for i, name in enumerate(("a.png", "deep/b.bmp")):
        lossless.write(source / name, image(i), "RGB")
    lossless.write(source / "large.png", image(2, side=9), "RGB")
    lossless.write(source / "gray.png", image(3, channels=1), "L")
    (source / "broken.png").write_bytes(b"no image")
    (source / "notes.txt").write_text("left alone")
    summary = protect(network, source, target)
    assert (summary.done, summary.skipped) == (2, 0)
    reasons = dict(summary.failed)
    assert len(reasons) == 3
    for name, word in (("large.png", "3×9×9"), ("gray.png", "gray"), ("broken.png", "decode")):
        assert word in reasons[str(source / name)]
    for i, name in enumerate(("a.png", "deep/b.bmp.png")):
        assert torch.equal(lossless.read(target / name)[0], network.protect(image(i)[None])[0])


def test_one_file(tmp_path: Path, network: Transformation) -> None:
    lossless.write(tmp_path / "one.png", image(0), "RGB")
    assert protect(network, tmp_path / "one.png", tmp_path / "out").done == 1
    assert (tmp_path / "out" / "one.png").exists()


def test_folders_that_cannot_be_used(tmp_path: Path, network: Transformation) -> None:
    with pytest.raises(DataError, match="no image file"):
        protect(network, tmp_path / "absent", tmp_path / "out")
    lossless.write(tmp_path / "one.png", image(0), "RGB")
    with pytest.raises(DataError, match="in use"):
        protect(network, tmp_path / "one.png", tmp_path)
