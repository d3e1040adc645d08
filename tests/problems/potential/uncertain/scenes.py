"""A body of some hundred voxels that has all there is: air, layers, a tensor, a core."""

import numpy as np

import physics_hybrid as ph

NAMES = {1: "skin", 2: "fat", 3: "muscle", 4: "bone"}
SIGMA = np.array([[0.0] * 3, [0.02] * 3, [0.05] * 3, [1.2, 0.24, 0.24], [0.02, 0.02, 0.02]])


def layered(shape=(8, 8, 8), spacing=(0.01, 0.005, 0.005)):
    """Layers round a core that is not in the middle."""
    _, h, w = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    labels = np.where(h**2 + w**2 < 1.3, 1, 0)
    for label, edge in ((2, 0.9), (3, 0.6)):
        labels[np.maximum(np.abs(h), np.abs(w)) < edge] = label
    labels[(np.abs(h - 0.1) < 0.15) & (np.abs(w) < 0.2)] = 4
    return ph.Body(SIGMA[labels], spacing, labels=labels, names=NAMES)


#: Where the current comes in, in muscle; on the skin; inside; where it is taken out. m
SOURCE = (0.045, 0.0131, 0.0262)
SKIN = np.array([[0.023, 0.0021, 0.0212], [0.056, 0.0379, 0.0171], [0.033, 0.0021, 0.0231]])
INSIDE = np.array([[0.023, 0.0263, 0.0213], [0.064, 0.0131, 0.0231]])
BACK = (0.069, 0.0379, 0.0213)
