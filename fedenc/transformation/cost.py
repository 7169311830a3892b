"""What a transformation network costs a participant, beside a cipher's milliseconds an image."""

import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from fedenc import seeding
from fedenc.transformation.bundle import Transformation


def cost(
    transformation: Transformation, *, images: int = 64, repeats: int = 5
) -> dict[str, float | int]:
    """Size and speed of a network as participants use it, on the device that it is on.

    Time depends on the machine and on the number of threads, which is the caller's to set.

    Args:
        transformation: what is measured.
        images: how many are protected at once.
        repeats: timings, of which the median counts; one more before them warms up.

    Returns:
        ``parameters``: trained numbers. ``bytes``: what they and all buffers take, without the
        file's header. ``mflop_per_image``: millions of floating-point operations in convolutions
        and products, a multiplication and its addition counted as two. ``ms_per_image``: from
        8-bit plain to 8-bit protected, with ``ms_least`` and ``ms_most`` of the timings.
    """
    network = transformation.network
    shape = (3, *transformation.size)
    device = next(network.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *shape, device=device))
    generator = seeding.generator(0, "cost")
    batch = torch.randint(256, (images, *shape), dtype=torch.uint8, generator=generator).to(device)
    transformation.protect(batch)
    timings = sorted(_milliseconds(transformation, batch) / images for _ in range(repeats))
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "bytes": sum(t.numel() * t.element_size() for t in network.state_dict().values()),
        "mflop_per_image": counter.get_total_flops() / 1e6,
        "ms_per_image": statistics.median(timings),
        "ms_least": timings[0],
        "ms_most": timings[-1],
    }


def _milliseconds(transformation: Transformation, batch: torch.Tensor) -> float:
    start = time.perf_counter()
    transformation.protect(batch)
    if batch.device.type == "cuda":
        torch.cuda.synchronize(batch.device)
    return (time.perf_counter() - start) * 1e3
