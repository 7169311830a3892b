"""Accuracy: what protection, input stage and augmentation cost and gain on CIFAR-10."""
