"""Arrow arrays as numpy arrays without a copy, and without pandas.

`pyarrow.Array.to_numpy` loads pandas wherever it is installed: half a second and 33 MiB for a library that
nothing here uses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_DTYPES = {
    kind.id: dtype
    for kind, dtype in (
        (pa.float64(), np.float64),
        (pa.float32(), np.float32),
        (pa.int8(), np.int8),
        (pa.int16(), np.int16),
        (pa.int32(), np.int32),
        (pa.int64(), np.int64),
        (pa.uint8(), np.uint8),
        (pa.uint16(), np.uint16),
        (pa.uint32(), np.uint32),
        (pa.uint64(), np.uint64),
    )
}


def numpy_of(array: pa.Array) -> npt.NDArray[Any]:
    """The values of an array of numbers or booleans without nulls, shape (rows,); not to be written to."""
    if pa.types.is_boolean(array.type):
        return numpy_of(pc.cast(array, pa.uint8())).view(np.bool_)
    dtype = np.dtype(_DTYPES[array.type.id])
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.empty(0, dtype=dtype)
    return np.frombuffer(data, dtype, len(array), array.offset * dtype.itemsize)
