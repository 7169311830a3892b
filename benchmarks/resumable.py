"""What benchmarks that go on where they were stopped share."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedenc.files import write_atomically


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write settings down in a folder; rows of other settings must not end up in one table."""
    path = folder / "settings.json"
    content = json.dumps(settings, indent=2, sort_keys=True).encode()
    if path.exists() and path.read_bytes() != content:
        raise SystemExit(f"{path} holds other settings than these; choose another --folder")
    write_atomically(path, content)


def public(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are published: where the data lay on one machine is nobody's business."""
    return {**settings, "data": {**settings["data"], "root": "DATA"}}
