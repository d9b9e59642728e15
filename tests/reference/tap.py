"""TAP in NumPy, float64: loops over taps, formulas as in the paper (Su and Wen 2022), gradients by the chain rule."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Layer = tuple[Array, Array]  # weight (outputs, inputs, kernel, kernel) and bias (outputs,)


@dataclass
class Aligned:
    """A pair's results, and what the way back needs."""

    distance: Array
    alignment: Array
    value: float
    maps: list[Array] = field(default_factory=list)  # inputs of the layers; last, g

    @property
    def transport(self) -> Array:
        return self.alignment / self.alignment.sum()


@dataclass
class Gradients:
    x: Array
    y: Array
    layers: list[Layer]


def distances(x: Array, y: Array) -> Array:
    return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))


def positions(n: int, m: int) -> Array:
    return np.abs(np.arange(1, n + 1)[:, None] / n - np.arange(1, m + 1)[None] / m)


def shifted(image: Array, ty: int, tx: int, half: int) -> Array:
    """image[:, i + ty - half, j + tx - half], zero outside."""
    padded = np.pad(image, ((0, 0), (half, half), (half, half)))
    return padded[:, ty : ty + image.shape[1], tx : tx + image.shape[2]]


def convolve(image: Array, weight: Array, bias: Array) -> Array:
    size = weight.shape[-1]
    out = np.broadcast_to(bias[:, None, None], (len(bias), *image.shape[1:])).copy()
    for ty in range(size):
        for tx in range(size):
            out += np.einsum("oc,cij->oij", weight[:, :, ty, tx], shifted(image, ty, tx, size // 2))
    return out


def convolve_back(image: Array, weight: Array, grad: Array) -> tuple[Array, Layer]:
    """Gradients of the image and of the layer."""
    size, half = weight.shape[-1], weight.shape[-1] // 2
    grad_image, grad_weight = np.zeros_like(image), np.zeros_like(weight)
    for ty in range(size):
        for tx in range(size):
            grad_weight[:, :, ty, tx] = np.einsum("oij,cij->oc", grad, shifted(image, ty, tx, half))
            turned = shifted(grad, size - 1 - ty, size - 1 - tx, half)
            grad_image += np.einsum("oc,oij->cij", weight[:, :, ty, tx], turned)
    return grad_image, (grad_weight, grad.sum((1, 2)))


def align(x: Array, y: Array, layers: list[Layer], last_relu: bool = True) -> Aligned:
    distance = distances(x, y)
    maps = [np.stack([distance, positions(len(x), len(y))])]
    for k, (weight, bias) in enumerate(layers):
        out = convolve(maps[-1], weight, bias)
        maps.append(np.maximum(out, 0) if k < len(layers) - 1 or last_relu else out)
    cost = distance + maps[-1][0]
    power = np.exp(cost.min(1, keepdims=True) - cost)
    alignment = power / power.sum(1, keepdims=True)
    return Aligned(distance, alignment, float((alignment * distance).sum() / len(x)), maps)


def backward(
    a: Aligned,
    x: Array,
    y: Array,
    layers: list[Layer],
    last_relu: bool = True,
    grad_value: float = 1,
    grad_alignment: Array | float = 0,
    grad_transport: Array | float = 0,
) -> Gradients:
    """Gradients of grad_value value + <grad_alignment, A> + <grad_transport, T>."""
    n = len(x)
    upstream = grad_value * a.distance / n + grad_alignment + grad_transport / n
    grad_cost = -a.alignment * (upstream - (a.alignment * upstream).sum(1, keepdims=True))
    grad_distance = grad_value * a.alignment / n + grad_cost
    grad, found = grad_cost[None], []
    for k in reversed(range(len(layers))):
        if k < len(layers) - 1 or last_relu:
            grad = grad * (a.maps[k + 1] > 0)
        grad, of_layer = convolve_back(a.maps[k], layers[k][0], grad)
        found.insert(0, of_layer)
    grad_distance = grad_distance + grad[0]
    weight = np.divide(grad_distance, a.distance, out=np.zeros_like(a.distance), where=a.distance > 0)
    apart = weight[..., None] * (x[:, None] - y[None])
    return Gradients(apart.sum(1), -apart.sum(0), found)
