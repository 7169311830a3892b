"""The shortest training loop that does the same work: what there is to compare with."""

import time

import torch
import torch.nn.functional as F
from torch import Tensor

from fedenc.models.network import Network
from fedenc.training.config import TrainingConfig
from fedenc.training.precision import autocast


def train(
    model: Network, images: Tensor, labels: Tensor, config: TrainingConfig, device: torch.device
) -> float:
    """Seconds for ``config.epochs`` passes: no augmentation, reports, checkpoints or resuming."""
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    images, labels = images.to(device), labels.to(device)
    steps = -(-len(images) // config.batch_size)
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=config.epochs * steps + 1
    )
    generator = torch.Generator().manual_seed(0)
    start = time.perf_counter()
    for _ in range(config.epochs):
        order = torch.randperm(len(images), generator=generator).to(device)
        for rows in order.tensor_split(steps):
            batch = images[rows].contiguous(memory_format=torch.channels_last)
            with autocast(config.precision, device):
                loss = F.cross_entropy(model(batch).float(), labels[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
