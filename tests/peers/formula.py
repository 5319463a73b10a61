"""Weights by formula: what a tensor holds follows from its name, so that test models need not be stored.

The seed of a tensor is the 64-bit FNV-1a hash of "<component>/<key>"; element i, counted in row-major order, is the
SplitMix64 output number i+1 of that seed, made a number v in [-1, 1) with 24 bits and scaled by the tensor's kind. Every
operation on v is one rounded f32 operation, so another language gives the same bits.
"""

import math

import numpy as np

MASK = (1 << 64) - 1
GOLDEN_GAMMA = 0x9E3779B97F4A7C15
CHUNK = 1 << 16
"""Elements computed at a time: what stays in the processor's cache."""

SHARP = ("attn2.to_q", "attn2.to_k")
"""Projections made three times as large, or the cross-attention maps would be nearly uniform."""

QUIET = ("self_attn.out_proj", "mlp.fc2")
"""What each text layer adds to its residual stream, made four times smaller: SDXL reads the stream without a norm, and at
five times the usual size the sharp projections would turn 70 layers of attention into rounding noise."""


def fnv1a(text):
    """64-bit FNV-1a hash of the UTF-8 bytes of `text`."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def uniform(seed, start, count):
    """Numbers `start` to `start + count` of the stream: f32 in [-1, 1), exact."""
    z = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    z *= np.uint64(GOLDEN_GAMMA)
    z += np.uint64(seed)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    u = (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
    return np.float32(2) * u - np.float32(1)


def scaled(key, shape, v):
    """Turn `v` into weights: the scale depends on the key and the shape alone."""
    if key.endswith("bias"):
        return np.float32(0.05) * v
    if len(shape) == 1:
        return np.float32(1) + np.float32(0.1) * v
    if "embedding" in key:  # also the linear layers of time_embedding and add_embedding
        return np.float32(0.1) * v
    values = np.float32(math.sqrt(3 / math.prod(shape[1:]))) * v
    if any(name in key for name in SHARP):
        return np.float32(3) * values
    if any(name in key for name in QUIET):
        return np.float32(0.25) * values
    return values


def weights(component, key, shape):
    """The f32 array of one tensor, e.g. `weights("unet", "conv_in.weight", (32, 4, 3, 3))`."""
    seed = fnv1a(f"{component}/{key}")
    values = np.empty(math.prod(shape), np.float32)
    for start in range(0, values.size, CHUNK):
        part = values[start : start + CHUNK]
        part[:] = scaled(key, shape, uniform(seed, start, part.size))
    return values.reshape(shape)
