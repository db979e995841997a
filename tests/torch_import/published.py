"""The published PyTorch networks in NumPy, in evaluation mode, written from their modules.

A network is a function of a `State` and images (batch, channels, height, width); the state makes
each tensor, random and in torch's layout, when the network first asks for it. So names and shapes
of a whole state dict come of the forward pass itself, and nothing here knows tfkd.
"""

import numpy as np


class State(dict):
    """A state dict that grows: name -> array. A dry one has shapes and computes nothing."""

    def __init__(self, seed=0, dry=False):
        super().__init__()
        self.random = np.random.default_rng(seed)
        self.dry = dry

    def tensor(self, name, shape, draw):
        if name not in self:
            self[name] = np.broadcast_to(np.float32(0), shape) if self.dry else draw(shape)
        assert self[name].shape == tuple(shape), name
        return self[name]

    def normal(self, mean, deviation):
        return lambda shape: (
            np.float32(deviation) * self.random.standard_normal(shape, np.float32)
            + np.float32(mean)
        )

    def uniform(self, low, high):
        return lambda shape: self.random.uniform(low, high, shape).astype(np.float32)

    def conv(self, name, x, filters, size, stride=1, groups=1, bias=False):
        """A convolution with padding size // 2."""
        inner = x.shape[1] // groups
        shape = (filters, inner, size, size)
        usual = (2 / (inner * size**2)) ** 0.5
        kernel = self.tensor(f"{name}.weight", shape, self.normal(0, usual))
        shift = self.tensor(f"{name}.bias", (filters,), self.normal(0, 0.3)) if bias else None
        height, width = (1 + (side - 1) // stride for side in x.shape[2:])
        if self.dry:
            return np.broadcast_to(np.float32(0), (len(x), filters, height, width))
        seen = windows(padded(x, size // 2), size, stride).transpose(0, 1, 4, 5, 2, 3)
        columns = seen.reshape(len(x), groups, inner * size**2, height * width)
        rows = kernel.reshape(groups, filters // groups, inner * size**2).astype(x.dtype)
        y = (rows @ columns).reshape(len(x), filters, height, width)
        return y if shift is None else y + shift[:, None, None]

    def norm(self, name, x):
        """Batch normalization by running statistics, which are far from 0 and 1."""
        shape = (x.shape[1],)
        scale = self.tensor(f"{name}.weight", shape, self.uniform(0.8, 1.8))
        shift = self.tensor(f"{name}.bias", shape, self.normal(0.2, 0.3))
        mean = self.tensor(f"{name}.running_mean", shape, self.normal(0, 0.5))
        variance = self.tensor(f"{name}.running_var", shape, self.uniform(0.2, 1.5))
        if self.dry:
            return x
        factor = scale / np.sqrt(variance.astype(np.float64) + 1e-5)
        return (x - mean[:, None, None]) * factor[:, None, None] + shift[:, None, None]

    def linear(self, name, x, units):
        shape = (units, x.shape[1])
        kernel = self.tensor(f"{name}.weight", shape, self.normal(0, x.shape[1] ** -0.5))
        bias = self.tensor(f"{name}.bias", (units,), self.normal(0, 0.3))
        if self.dry:
            return np.broadcast_to(np.float32(0), (len(x), units))
        return x.astype(np.float32) @ kernel.T + bias


def padded(x, size, value=0.0):
    return np.pad(x, ((0, 0), (0, 0), (size, size), (size, size)), constant_values=value)


def relu(x):
    return np.maximum(x, 0)


def windows(x, size, stride):
    views = np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))
    return views[:, :, ::stride, ::stride]


def max_pool(x, size, stride, padding=0):
    return windows(padded(x, padding, -np.inf), size, stride).max((-2, -1))


def adaptive_mean(x, side):
    """torch.nn.AdaptiveAvgPool2d: parts that overlap where the sides do not divide."""
    rows = [(i * x.shape[2] // side, -(-(i + 1) * x.shape[2] // side)) for i in range(side)]
    columns = [(i * x.shape[3] // side, -(-(i + 1) * x.shape[3] // side)) for i in range(side)]
    parts = [[x[:, :, a:b, c:d].mean((2, 3)) for c, d in columns] for a, b in rows]
    return np.array(parts).transpose(2, 3, 0, 1)


def shuffled(x, groups):
    batch, channels, height, width = x.shape
    apart = x.reshape(batch, groups, channels // groups, height, width)
    return apart.transpose(0, 2, 1, 3, 4).reshape(x.shape)


def residual_block(s, name, x, width, stride, shortcut, bottleneck=False):
    out = 4 * width if bottleneck else width
    sizes = ((1, width), (3, width), (1, out)) if bottleneck else ((3, width), (3, width))
    strided = 2 if bottleneck else 1
    y = x
    for number, (size, filters) in enumerate(sizes, start=1):
        y = s.conv(f"{name}.conv{number}", y, filters, size, stride if number == strided else 1)
        y = s.norm(f"{name}.bn{number}", y)
        if number < len(sizes):
            y = relu(y)
    if stride > 1 or x.shape[1] != out:
        x = s.conv(f"{name}.{shortcut}.0", x, out, 1, stride)
        x = s.norm(f"{name}.{shortcut}.1", x)
    return relu(x + y)


def resnet(s, x, classes, depth, widths=(16, 16, 32, 64)):
    x = relu(s.norm("bn1", s.conv("conv1", x, widths[0], 3)))
    for layer, width in enumerate(widths[1:], start=1):
        for block in range((depth - 2) // 6):
            stride = 2 if layer > 1 and block == 0 else 1
            x = residual_block(s, f"layer{layer}.{block}", x, width, stride, "downsample")
    return s.linear("fc", x.mean((2, 3)), classes)


def four_layers(s, x, classes, blocks, bottleneck, small):
    if small:
        x = relu(s.norm("bn1", s.conv("conv1", x, 64, 3)))
    else:
        x = relu(s.norm("bn1", s.conv("conv1", x, 64, 7, 2)))
        x = max_pool(x, 3, 2, padding=1)
    shortcut = "shortcut" if small else "downsample"
    for layer, count in enumerate(blocks, start=1):
        for block in range(count):
            stride = 2 if layer > 1 and block == 0 else 1
            name = f"layer{layer}.{block}"
            x = residual_block(s, name, x, 32 * 2**layer, stride, shortcut, bottleneck)
    return s.linear("linear" if small else "fc", x.mean((2, 3)), classes)


def wrn(s, x, classes, depth, width):
    x = s.conv("conv1", x, 16, 3)
    for group in (1, 2, 3):
        filters = 8 * width * 2**group
        for layer in range((depth - 4) // 6):
            name = f"block{group}.layer.{layer}"
            stride = 2 if group > 1 and layer == 0 else 1
            y = relu(s.norm(f"{name}.bn1", x))
            if x.shape[1] != filters:
                x = s.conv(f"{name}.convShortcut", y, filters, 1, stride)
            y = relu(s.norm(f"{name}.bn2", s.conv(f"{name}.conv1", y, filters, 3, stride)))
            x = x + s.conv(f"{name}.conv2", y, filters, 3)
    return s.linear("fc", relu(s.norm("bn1", x)).mean((2, 3)), classes)


def vgg(s, x, classes, counts):
    for block, (count, width) in enumerate(zip(counts, (64, 128, 256, 512, 512))):
        for number in range(count):
            x = s.conv(f"block{block}.{3 * number}", x, width, 3, bias=True)
            x = relu(s.norm(f"block{block}.{3 * number + 1}", x))
        if block < 3:
            x = max_pool(x, 2, 2)
    return s.linear("classifier", x.mean((2, 3)), classes)


def imagenet_vgg16(s, x, classes, normalized):
    place = 0
    for count, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(count):
            x = s.conv(f"features.{place}", x, width, 3, bias=True)
            if normalized:
                x = s.norm(f"features.{place + 1}", x)
            x = relu(x)
            place += 2 + normalized
        x = max_pool(x, 2, 2)
        place += 1
    x = adaptive_mean(x, 7).reshape(len(x), -1)
    x = relu(s.linear("classifier.0", x, 4096))
    x = relu(s.linear("classifier.3", x, 4096))
    return s.linear("classifier.6", x, classes)


def mobilenetv1(s, x, classes):
    x = relu(s.norm("model.0.1", s.conv("model.0.0", x, 32, 3, 2)))
    plan = "64-1 128-2 128-1 256-2 256-1 512-2 512-1 512-1 512-1 512-1 512-1 1024-2 1024-1"
    for block, each in enumerate(plan.split(), start=1):
        width, stride = map(int, each.split("-"))
        name = f"model.{block}"
        x = s.conv(f"{name}.0", x, x.shape[1], 3, stride, groups=x.shape[1])
        x = relu(s.norm(f"{name}.1", x))
        x = relu(s.norm(f"{name}.4", s.conv(f"{name}.3", x, width, 1)))
    return s.linear("fc", x.mean((2, 3)), classes)


def mobilenetv2(s, x, classes):
    x = relu(s.norm("conv1.1", s.conv("conv1.0", x, 16, 3, 2)))
    plan = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2),
            (6, 160, 1, 1))  # fmt: skip
    for group, (expansion, width, count, first) in enumerate(plan):
        for block in range(count):
            name, inner = f"blocks.{group}.{block}.conv", x.shape[1] * expansion
            y = relu(s.norm(f"{name}.1", s.conv(f"{name}.0", x, inner, 1)))
            y = s.conv(f"{name}.3", y, inner, 3, first if block == 0 else 1, groups=inner)
            y = relu(s.norm(f"{name}.4", y))
            y = s.norm(f"{name}.7", s.conv(f"{name}.6", y, width, 1))
            x = x + y if y.shape == x.shape else y
    x = relu(s.norm("conv2.1", s.conv("conv2.0", x, 1280, 1)))
    return s.linear("classifier.0", x.mean((2, 3)), classes)


def shufflev1(s, x, classes):
    x = relu(s.norm("bn1", s.conv("conv1", x, 24, 1)))
    for layer, (width, count) in enumerate(((240, 4), (480, 8), (960, 4)), start=1):
        for block in range(count):
            name, stride = f"layer{layer}.{block}", 2 if block == 0 else 1
            out = width - x.shape[1] if block == 0 else width
            middle, groups = int(out / 4), 1 if x.shape[1] == 24 else 3
            y = relu(s.norm(f"{name}.bn1", s.conv(f"{name}.conv1", x, middle, 1, groups=groups)))
            y = s.conv(f"{name}.conv2", shuffled(y, groups), middle, 3, stride, groups=middle)
            y = relu(s.norm(f"{name}.bn2", y))
            y = s.norm(f"{name}.bn3", s.conv(f"{name}.conv3", y, out, 1, groups=3))
            if stride == 2:
                x = relu(np.concatenate([y, windows(padded(x, 1), 3, 2).mean((-2, -1))], 1))
            else:
                x = relu(x + y)
    return s.linear("linear", x.mean((2, 3)), classes)


def shufflev2(s, x, classes):
    def step(name, number, y, width, size=1, stride=1):
        groups = width if size == 3 else 1
        y = s.conv(f"{name}.conv{number}", y, width, size, stride, groups=groups)
        return s.norm(f"{name}.bn{number}", y)

    x = relu(s.norm("bn1", s.conv("conv1", x, 24, 1)))
    for layer, (width, count) in enumerate(((116, 3), (232, 7), (464, 3)), start=1):
        name, half = f"layer{layer}.0", width // 2
        left = relu(step(name, 2, step(name, 1, x, x.shape[1], 3, 2), half))
        right = relu(step(name, 3, x, half))
        right = relu(step(name, 5, step(name, 4, right, half, 3, 2), half))
        x = shuffled(np.concatenate([left, right], 1), 2)
        for block in range(1, count + 1):
            name = f"layer{layer}.{block}"
            kept, y = x[:, :half], x[:, half:]
            y = step(name, 2, relu(step(name, 1, y, half)), half, 3)
            y = relu(step(name, 3, y, half))
            x = shuffled(np.concatenate([kept, y], 1), 2)
    x = relu(s.norm("bn2", s.conv("conv2", x, 1024, 1)))
    return s.linear("linear", x.mean((2, 3)), classes)


WIDE = (32, 64, 128, 256)
NETWORKS = {
    **{f"resnet{n}": (resnet, {"depth": n}) for n in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{n}x4": (resnet, {"depth": n, "widths": WIDE}) for n in (8, 32)},
    "resnet18_cifar": (four_layers, {"blocks": (2, 2, 2, 2), "bottleneck": False, "small": True}),
    "resnet50_cifar": (four_layers, {"blocks": (3, 4, 6, 3), "bottleneck": True, "small": True}),
    "resnet18": (four_layers, {"blocks": (2, 2, 2, 2), "bottleneck": False, "small": False}),
    "resnet34": (four_layers, {"blocks": (3, 4, 6, 3), "bottleneck": False, "small": False}),
    "resnet50": (four_layers, {"blocks": (3, 4, 6, 3), "bottleneck": True, "small": False}),
    "resnet101": (four_layers, {"blocks": (3, 4, 23, 3), "bottleneck": True, "small": False}),
    **{
        f"wrn_{depth}_{width}": (wrn, {"depth": depth, "width": width})
        for depth in (16, 40)
        for width in (1, 2)
    },
    "vgg8": (vgg, {"counts": (1, 1, 1, 1, 1)}),
    "vgg11": (vgg, {"counts": (1, 1, 2, 2, 2)}),
    "vgg13": (vgg, {"counts": (2, 2, 2, 2, 2)}),
    "vgg16_cifar": (vgg, {"counts": (2, 2, 3, 3, 3)}),
    "vgg19": (vgg, {"counts": (2, 2, 4, 4, 4)}),
    "vgg16_imagenet": (imagenet_vgg16, {"normalized": False}),
    "vgg16_bn_imagenet": (imagenet_vgg16, {"normalized": True}),
    "mobilenetv1": (mobilenetv1, {}),
    "mobilenetv2": (mobilenetv2, {}),
    "shufflev1": (shufflev1, {}),
    "shufflev2": (shufflev2, {}),
}


def forward(name, state, images, classes):
    """The logits of a published network for images (batch, channels, height, width)."""
    network, arguments = NETWORKS[name]
    return network(state, images, classes, **arguments)


def state_of(name, classes=100, side=32, seed=0, dry=False, channels=3):
    """A state dict of a published network; of zeros, and free, if dry."""
    state = State(seed, dry)
    forward(name, state, np.zeros((1, channels, side, side)), classes)
    return state
