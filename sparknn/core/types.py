"""Array types of the core."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# float32 in a fit; float64 in tests that check gradients by central differences.
FloatArray = NDArray[np.floating[Any]]
Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]
# Class indices, or a regression's targets.
TargetArray = NDArray[np.floating[Any] | np.integer[Any]]
