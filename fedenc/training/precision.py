"""Which number format the convolutions compute in."""

from contextlib import AbstractContextManager, nullcontext

import torch

from fedenc.errors import TrainingError


def computes_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself. Where it does not, bf16 is only slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return any(bool(getattr(torch.cpu, probe, bool)()) for probe in probes)
    return False


def resolve(precision: str, device: torch.device) -> str:
    """ "auto", "fp32" or "bf16" to what is used on ``device``: "fp32" or "bf16"."""
    if precision == "auto":
        return "bf16" if computes_bf16(device) else "fp32"
    if precision not in ("fp32", "bf16"):
        raise TrainingError(f"precision is {precision!r}; expected auto, fp32 or bf16")
    return precision


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """The context to compute in: bf16 autocast where ``resolve`` says so."""
    if resolve(precision, device) == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
