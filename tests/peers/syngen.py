"""SynGen's loss and gradient on a map of known values, in NumPy's f64: the vectors of `guidance/syngen.rs`.

    python3 tests/peers/syngen.py

Formula: Rassin et al., Linguistic Binding in Diffusion Models (NeurIPS 2023), section 3.2, with the mean of both
divergences for a distance and the farthest piece of a word in several. The gradient is that of central differences.
"""

import itertools

import numpy as np

SIDE, TOKENS, EOT = 16, 77, 8


def example():
    """Probabilities [pixels, tokens]: softmax over n of sin(0.3y + 0.7n) + cos(0.2x - 0.5n) + 0.05 (n mod 5)."""
    y, x, n = np.meshgrid(np.arange(SIDE), np.arange(SIDE), np.arange(TOKENS), indexing="ij")
    logits = np.sin(0.3 * y + 0.7 * n) + np.cos(0.2 * x - 0.5 * n) + 0.05 * (n % 5)
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).reshape(SIDE * SIDE, TOKENS)


def distance(a, b):
    """The mean of both Kullback-Leibler divergences."""
    return 0.5 * (np.sum(a * np.log(a / b)) + np.sum(b * np.log(b / a)))


def loss(maps, sets, eot=EOT):
    """`sets`: pairs of a noun and its modifiers, each a list of positions."""
    p = maps / maps.sum(0)

    def between(word, other):
        return max(distance(p[:, a], p[:, b]) for a, b in itertools.product(word, other))

    total = 0.0
    for noun, modifiers in sets:
        inside = set(noun).union(*modifiers)
        outside = [n for n in range(1, eot) if n not in inside]

        def far(word):
            return np.mean([between(word, [o]) for o in outside])

        for modifier in modifiers:
            total += between(modifier, noun) - 0.5 * (far(noun) + far(modifier))
        if not modifiers:
            total -= far(noun)
    return total


def gradient(maps, sets, pixel, token, step=1e-6):
    """One entry of the loss's gradient with respect to the probabilities."""
    up, down = maps.copy(), maps.copy()
    up[pixel, token] += step
    down[pixel, token] -= step
    return (loss(up, sets) - loss(down, sets)) / (2 * step)


CASES = {
    "a pair": [([3], [[2]])],
    "two pairs": [([3], [[2]]), ([7], [[6]])],
    "two modifiers": [([5], [[2], [4]])],
    "pieces": [([3, 4], [[1, 2]])],
    "a noun alone": [([3], [])],
}

if __name__ == "__main__":
    maps = example()
    for name, sets in CASES.items():
        at = [(0, 2), (100, 3), (255, 7)]
        entries = ", ".join(f"{gradient(maps, sets, *place):.6f}" for place in at)
        print(f"{name:14} {loss(maps, sets):.7f}  gradient at {at}: {entries}")
