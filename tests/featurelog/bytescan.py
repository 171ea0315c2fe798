"""Look for a number in bytes in every form that an output could give it."""

import base64
import struct
from collections.abc import Iterable


def forms_of(digits: str) -> dict[str, list[bytes]]:
    """Form -> the byte strings that betray `digits` in it."""
    raw = digits.encode()
    groups = [digits[start : start + 4] for start in range(0, len(digits), 4)]
    number = int(digits)
    return {
        "raw": [raw],
        "grouped": [sep.join(groups).encode() for sep in (" ", "-", ".", "%20", "+")],
        "base64": [_base64(raw, shift) for shift in range(3)],
        "hex": [each.encode() for text in (raw.hex(), f"{number:x}") for each in (text, text.upper())],
        "url": ["".join(f"%{each:02x}" for each in raw).encode()],
        "json": ["".join(f"\\u{each:04x}" for each in raw).encode()],
        "utf-16": [digits.encode("utf-16-le"), digits.encode("utf-16-be")],
        "binary": [
            struct.pack(code, number) for code in ("<q", ">q", "<d", ">d")
        ],
    }  # fmt: skip


def _base64(raw: bytes, shift: int) -> bytes:
    """The base64 characters that `raw` alone decides, begun `shift` bytes into a group of three."""
    encoded = base64.b64encode(b"\0" * shift + raw)
    first = (0, 2, 3)[shift]
    whole = (len(raw) + shift) * 8 // 6
    return encoded[first:whole]


def betrayals(digits: str, outputs: Iterable[bytes]) -> list[str]:
    """The forms in which `digits` stands in one of the outputs."""
    blobs = list(outputs)
    return [
        form
        for form, needles in forms_of(digits).items()
        if any(needle in blob for needle in needles for blob in blobs)
    ]
