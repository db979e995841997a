"""Weights of PyTorch networks: read from their files without PyTorch, and put into tfkd's networks.

For example:

    weights = tfkd.torch.read("resnet32x4/ckpt_epoch_240.pth")
    model = tfkd.torch.port(weights, "resnet32x4")
"""

from tfkd.torch.checkpoint import read
from tfkd.torch.porting import assign, port
from tfkd.torch.rules import networks

__all__ = ["assign", "networks", "port", "read"]
