"""Arrays in JSON: compressed, and in base64 by msgspec."""

import math
import zlib
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Count = Annotated[int, msgspec.Meta(ge=1)]

# More than any experiment has answers and any figure shows.
_MOST_BYTES = 2**28
_BITS, _BYTES = "base64(zlib(numpy.packbits))", "base64(zlib(little endian))"


class _Packed(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    shape: tuple[Count, ...]
    encoding: str
    data: bytes
    dtype: Literal["float32", "uint8", "bool"] = "bool"


def pack(array: Array, *, bits: bool = False) -> Any:
    """An array of float32, uint8 or bool as JSON; bool may take a bit an element."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    raw = (np.packbits(little) if bits else little).tobytes()
    name: Any = array.dtype.name
    compressed = zlib.compress(raw, 9)
    return msgspec.to_builtins(_Packed(array.shape, _BITS if bits else _BYTES, compressed, name))


def unpack(content: Any) -> Array:
    """The array that was packed.

    Raises:
        ValueError, zlib.error: content that is no packed array, or one that is too large.
    """
    packed = msgspec.convert(content, _Packed)
    dtype, bits = np.dtype(packed.dtype).newbyteorder("<"), packed.encoding == _BITS
    count = math.prod(packed.shape)
    whole = count * dtype.itemsize
    if whole > _MOST_BYTES or packed.encoding not in (_BITS, _BYTES):
        raise ValueError(f"an array of {whole:,} bytes in {packed.encoding}")
    size = -(-count // 8) if bits else whole
    raw = np.frombuffer(zlib.decompressobj().decompress(packed.data, size + 1), np.uint8)
    flat = np.unpackbits(raw) if bits else raw
    if len(raw) != size or flat[whole:].any():
        raise ValueError(f"an array that does not hold {count:,} elements")
    return flat[:whole].view(dtype).reshape(packed.shape)
