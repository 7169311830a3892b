"""VGG for small images (Simonyan & Zisserman, ICLR 2015, arXiv 1409.1556, configuration D)."""

from torch import nn

# Widths of the 3×3 convolutions between max-poolings (table 1, column D)
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16_bn(channels: int, classes: int) -> nn.Module:
    """VGG-16 with batch normalisation and the head of Ito, Kinoshita & Kiya (2021) for CIFAR:
    512 → 512 → 512 → classes, each hidden layer after dropout of 0.5.

    float N×channels×H×W to N×classes, H and W at least 32; 15.25 M parameters for RGB, ten classes.
    """
    features: list[nn.Module] = []
    inputs = 3
    for widths in STAGES:
        for width in widths:
            features += [
                nn.Conv2d(inputs, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            inputs = width
        features.append(nn.MaxPool2d(2))
    # Replaced, not made in the first place, so that for any channels the random numbers that
    # follow for the head are those of always.
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
