"""One layer of a causal pre-norm Transformer encoder, and its gradients.

u = x (or its product with `input` where x is not H wide); r = u + attend(norm(u)); y = r +
inner(norm(r)); after the last layer one more norm. Vaswani et al., arXiv 1706.03762, section 3.2;
norms before the sublayers and after the last: Xiong et al., arXiv 2002.04745, figure 1 and section
3.3; positions: the rotary embedding of Su et al., arXiv 2104.09864, section 3.2, base 10000, of
feature pairs (i, i + d/2) of each head, positions 0..T-1; inner layer 4H with the tanh form of
GELU, arXiv 1606.08415, section 2. Query, key, value and `out` have no bias. All arrays are float64,
and padded steps of `x` and `dy` hold zeros already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from impls.contract import Arrays, ModelSpec
from impls.params import NORM_EPSILON, ROTARY_BASE
from impls.reference.ops import product, valid_steps

Grads = dict[str, np.ndarray]
GELU_SCALE, GELU_CUBIC = math.sqrt(2.0 / math.pi), 0.044715


@dataclass(frozen=True)
class Normed:
    """A layer normalisation: its result, the whitened input, and 1 / standard deviation."""

    out: np.ndarray
    white: np.ndarray
    rate: np.ndarray


@dataclass(frozen=True)
class Attended:
    """Turned queries and keys, and values [B, N, T, d]; the weights of step t are [B, N, 1, t+1]."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    weights: list[np.ndarray]


@dataclass(frozen=True)
class Saved:
    """What the gradients need of the forward pass."""

    x: np.ndarray
    first: Normed
    attended: Attended
    mixed: np.ndarray
    second: Normed
    inner: np.ndarray
    final: Normed | None


def rotary(steps: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin [T, d/2] of the angles by which the pairs of a head of size d are turned."""
    rates = ROTARY_BASE ** (-np.arange(0, size, 2) / size)
    angles = np.arange(steps)[:, None] * rates
    return np.cos(angles), np.sin(angles)


def _turned(array: np.ndarray, back: bool = False) -> np.ndarray:
    """[B, N, T, d] with each pair of features turned by its step's angle, or turned back."""
    cos, sin = rotary(*array.shape[2:])
    sin = -sin if back else sin
    left, right = np.split(array, 2, axis=-1)
    return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


def _norm(weights: Arrays, name: str, u: np.ndarray) -> Normed:
    centred = u - u.mean(axis=-1, keepdims=True)
    rate = 1.0 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + NORM_EPSILON)
    white = centred * rate
    return Normed(white * weights[f"{name}.scale"] + weights[f"{name}.shift"], white, rate)


def _norm_backward(
    weights: Arrays, name: str, done: Normed, dout: np.ndarray, grads: Grads
) -> np.ndarray:
    """Gradient by the input of a normalisation; those of its parameters go into `grads`."""
    grads[f"{name}.scale"] = (dout * done.white).sum(axis=(0, 1))
    grads[f"{name}.shift"] = dout.sum(axis=(0, 1))
    dwhite = dout * weights[f"{name}.scale"]
    along = (dwhite * done.white).mean(axis=-1, keepdims=True)
    out: np.ndarray = done.rate * (dwhite - dwhite.mean(-1, keepdims=True) - along * done.white)
    return out


def _gelu(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """GELU in its tanh form, and its slope."""
    squashed = np.tanh(GELU_SCALE * (a + GELU_CUBIC * a**3))
    through = 0.5 * a * (1.0 - squashed * squashed) * GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * a**2)
    return 0.5 * a * (1.0 + squashed), 0.5 * (1.0 + squashed) + through


def _heads(array: np.ndarray, heads: int) -> np.ndarray:
    """[T, B, H] as [B, N, T, d]."""
    steps, batch, hidden = array.shape
    return array.reshape(steps, batch, heads, hidden // heads).transpose(1, 2, 0, 3)


def _joined(array: np.ndarray) -> np.ndarray:
    """[B, N, T, d] as [T, B, H]."""
    batch, heads, steps, size = array.shape
    return array.transpose(2, 0, 1, 3).reshape(steps, batch, heads * size)


def _attend(spec: ModelSpec, qkv: np.ndarray) -> tuple[np.ndarray, Attended]:
    """What each step gathers [T, B, H] from itself and the steps before, from [T, B, 3H]."""
    q, k, v = (_heads(part, spec.heads) for part in np.split(qkv, 3, axis=-1))
    q, k, out, rows = _turned(q), _turned(k), np.empty_like(v), []
    for t in range(q.shape[2]):
        at, seen = slice(t, t + 1), slice(t + 1)
        scores = q[:, :, at] @ k[:, :, seen].swapaxes(2, 3) / math.sqrt(q.shape[3])
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        rows.append(shares / shares.sum(axis=-1, keepdims=True))
        out[:, :, at] = rows[t] @ v[:, :, seen]
    return _joined(out), Attended(q, k, v, rows)


def _attend_backward(spec: ModelSpec, done: Attended, dout: np.ndarray) -> np.ndarray:
    """Gradient by the joined query, key and value [T, B, 3H]."""
    q, k, v, given = done.q, done.k, done.v, _heads(dout, spec.heads)
    dq, dk, dv = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
    for t, row in enumerate(done.weights):
        at, seen = slice(t, t + 1), slice(t + 1)
        dv[:, :, seen] += row.swapaxes(2, 3) @ given[:, :, at]
        drow = given[:, :, at] @ v[:, :, seen].swapaxes(2, 3)
        dscores = row * (drow - (drow * row).sum(-1, keepdims=True)) / math.sqrt(q.shape[3])
        dq[:, :, at] = dscores @ k[:, :, seen]
        dk[:, :, seen] += dscores.swapaxes(2, 3) @ q[:, :, at]
    parts = (_turned(dq, back=True), _turned(dk, back=True), dv)
    return np.concatenate([_joined(part) for part in parts], axis=-1)


def forward(
    spec: ModelSpec,
    weights: Arrays,
    x: np.ndarray,
    state: Arrays,
    lengths: np.ndarray,
    held: np.ndarray | None = None,
    training: bool = False,
) -> tuple[np.ndarray, Grads, Saved]:
    """Run the layer over x [T, B, C]; there is no state and no zoneout.

    Padding needs no mask of its own: it follows what is valid, and nothing sees what follows.

    Args:
        weights: the names of `impls.params`, `final_norm` in the last layer alone.
        lengths: [B].

    Returns:
        y [T, B, H] (0 on padded steps), no state, and what `backward` needs.
    """
    u = x
    if "input.weight" in weights:
        u = product(x, weights["input.weight"]) + weights["input.bias"]
    first = _norm(weights, "attention_norm", u)
    qkv = product(first.out, weights["qkv.weight"].reshape(spec.hidden_size, -1))
    mixed, attended = _attend(spec, qkv)
    residual = u + product(mixed, weights["out.weight"])
    second = _norm(weights, "inner_norm", residual)
    inner = product(second.out, weights["up.weight"]) + weights["up.bias"]
    y = residual + product(_gelu(inner)[0], weights["down.weight"]) + weights["down.bias"]
    final = _norm(weights, "final_norm", y) if "final_norm.scale" in weights else None
    y = np.where(valid_steps(lengths, len(x)), y if final is None else final.out, 0.0)
    return y, {}, Saved(x, first, attended, mixed, second, inner, final)


def backward(
    spec: ModelSpec, weights: Arrays, saved: Saved, dy: np.ndarray, dstate: Arrays
) -> tuple[np.ndarray, Grads, Grads]:
    """Gradients of a loss whose gradient by y is `dy`.

    Returns:
        Gradients by x [T, B, C], by the initial state (none), and by the weights, named as given.
    """
    grads: Grads = {}

    def through(name: str, entering: np.ndarray, dout: np.ndarray) -> np.ndarray:
        """Gradient by what enters a product; that of its weight, and of its bias, is noted."""
        weight = weights[f"{name}.weight"]
        matrix, flat = weight.reshape(len(weight), -1), dout.reshape(-1, dout.shape[-1])
        grads[f"{name}.weight"] = (entering.reshape(len(flat), -1).T @ flat).reshape(weight.shape)
        if f"{name}.bias" in weights:
            grads[f"{name}.bias"] = flat.sum(axis=0)
        return product(dout, matrix.T)

    if saved.final is not None:
        dy = _norm_backward(weights, "final_norm", saved.final, dy, grads)
    active, slope = _gelu(saved.inner)
    dinner = through("up", saved.second.out, through("down", active, dy) * slope)
    dresidual = dy + _norm_backward(weights, "inner_norm", saved.second, dinner, grads)
    dqkv = _attend_backward(spec, saved.attended, through("out", saved.mixed, dresidual))
    dfirst = through("qkv", saved.first.out, dqkv)
    du = dresidual + _norm_backward(weights, "attention_norm", saved.first, dfirst, grads)
    if "input.weight" in weights:
        du = through("input", saved.x, du)
    return du, {}, {name: grads[name] for name in weights}
