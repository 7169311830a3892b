"""VGG for small images (Simonyan & Zisserman, ICLR 2015, arXiv 1409.1556, configuration D)."""

from torch import nn
from torchvision.models.vgg import cfgs, make_layers


def vgg16_bn(channels: int, classes: int) -> nn.Module:
    """VGG-16 with batch normalisation and the head of Ito, Kinoshita & Kiya (2021) for CIFAR:
    512 → 512 → 512 → classes, each hidden layer after dropout of 0.5.

    float N×channels×H×W to N×classes, H and W at least 32; 15.25 M parameters for RGB, ten classes.
    """
    features = make_layers(cfgs["D"], batch_norm=True)
    if channels != 3:
        features[0] = nn.Conv2d(channels, 64, 3, padding=1)
    head = [
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(512, 512),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(512, 512),
        nn.ReLU(inplace=True),
        nn.Linear(512, classes),
    ]
    body = nn.Sequential(*features, *head)
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return body
