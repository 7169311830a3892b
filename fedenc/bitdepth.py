"""How many bits a channel has in an image file."""

from PIL import Image

_DEEP = ("I", "F")  # first letters of Pillow's modes of more than 8 bits a channel


def is_deep(image: Image.Image) -> bool:
    """Whether an image, opened but not read yet, has more than 8 bits a channel in its file.

    Pillow gives RGB of 16 bits the mode of 8, and drops the lower ones when it reads.
    """
    stored = (str(arguments) for _, _, _, arguments in getattr(image, "tile", ()))
    return image.mode.startswith(_DEEP) or any(";16" in text for text in stored)
