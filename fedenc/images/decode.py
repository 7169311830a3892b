"""The one decoder: encoded images, in files or memory, to upright pictures, 8 bits per channel."""

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fedenc.errors import DataError

_SIGNATURES = ((b"\x89PNG", ("PNG",)), (b"\xff\xd8\xff", ("JPEG",)), (b"RIFF", ("WEBP",)))
MAX_PIXELS = 100_000_000  # a few kilobytes can announce more than memory holds
_DEEP = ("I", "F")  # first letters of Pillow's modes of more than 8 bits a channel


def open_image(data: bytes | Path, where: str) -> Image.Image:
    """A decoded picture, upright if its EXIF data says how the camera was held.

    Args:
        data: an encoded image, or the file that holds one.
        where: its name in error messages.

    Raises:
        DataError: missing, not an image, a damaged one, one of more than 8 bits a channel, or of
            more than ``MAX_PIXELS``; this is found before it is decoded.
    """
    try:
        encoded = data if isinstance(data, bytes) else data.read_bytes()
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(io.BytesIO(encoded), formats=_formats(encoded)) as image,
        ):
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"{image.width}×{image.height} pixels, more than {MAX_PIXELS // 10**6} million"
                )
            if _is_deep(image):
                raise ValueError(f"mode {image.mode}, more than 8 bits a channel")
            return ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise DataError(f"{where} does not exist") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        unknown = isinstance(error, UnidentifiedImageError)  # whose text names an object in memory
        reason = "no image format that is known" if unknown else error or type(error).__name__
        raise DataError(
            f"cannot decode {where}: {reason}; expected an 8-bit image that "
            "Pillow can read: replace it or fetch the data again"
        ) from error


def sides(path: Path) -> tuple[int, int] | None:
    """Height and width that an image file announces, without decoding it or turning it upright;
    None if it announces none."""
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(path) as image,
        ):
            return image.height, image.width
    except Exception:  # as in open_image, which will say what is wrong
        return None


def decode(data: bytes | Path, where: str, size: int | None = None) -> NDArray[np.uint8]:
    """Decode one image to uint8 (H, W, 3) RGB; see :func:`open_image`.

    With ``size`` the image is resized (antialiased bilinear) until its short side has ``size``
    pixels and its centre ``size``×``size`` square is kept; an image of that size is unchanged.
    """
    return to_array(open_image(data, where).convert("RGB"), size)


def to_array(image: Image.Image, size: int | None) -> NDArray[np.uint8]:
    """An RGB image as uint8 (H, W, 3), after the resize and centre crop that `decode` describes."""
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _formats(encoded: bytes) -> tuple[str, ...] | None:
    """The usual formats by signature, because trying all of Pillow's formats takes long."""
    return next((name for start, name in _SIGNATURES if encoded.startswith(start)), None)


def _is_deep(image: Image.Image) -> bool:
    """Whether an image, opened but not read yet, has more than 8 bits a channel in its file.

    Pillow gives RGB of 16 bits the mode of 8, and drops the lower ones when it reads.
    """
    stored = (str(arguments) for _, _, _, arguments in getattr(image, "tile", ()))
    return image.mode.startswith(_DEEP) or any(";16" in text for text in stored)
