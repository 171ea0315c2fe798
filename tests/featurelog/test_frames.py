"""A frame is whole or it is nothing."""

from hypothesis import given
from hypothesis import strategies as st

from mlobs.featurelog.frames import HEADER_SIZE, LABELS, MAGIC, RECORDS, Damage, Frame, pack, unpack

PAYLOADS = [b"first", MAGIC + b"looks like a frame", b"", b"last one"]
DATA = b"".join(pack(RECORDS, place, payload) for place, payload in enumerate(PAYLOADS))


def payloads(data: bytes) -> list[bytes]:
    return [each.payload for each in unpack(data) if isinstance(each, Frame)]


def test_what_is_packed_is_unpacked() -> None:
    frames = list(unpack(DATA))
    assert frames == [
        Frame(RECORDS, place, payload, frame.end)
        for place, (payload, frame) in enumerate(zip(PAYLOADS, frames, strict=True))
        if isinstance(frame, Frame)
    ]
    assert frames[-1].end == len(DATA)


def test_a_cut_at_every_byte_costs_the_frame_it_falls_into_and_no_other() -> None:
    ends = [frame.end for frame in unpack(DATA)]
    for cut in range(len(DATA)):
        found = list(unpack(DATA[:cut]))
        whole = [each for each in found if isinstance(each, Frame)]
        assert len(whole) == sum(end <= cut for end in ends)
        torn = [each for each in found if isinstance(each, Damage)]
        assert len(torn) == (0 if cut in (0, *ends) else 1)
        assert all(each.torn for each in torn)


def test_a_flipped_byte_anywhere_costs_one_frame() -> None:
    for place in range(len(DATA)):
        damaged = DATA[:place] + bytes([DATA[place] ^ 0x41]) + DATA[place + 1 :]
        assert len(payloads(damaged)) == len(PAYLOADS) - 1
        assert sum(isinstance(each, Damage) for each in unpack(damaged)) == 1


def test_a_magic_within_a_payload_is_no_frame() -> None:
    inner = pack(LABELS, 1, b"smuggled")
    outer = pack(RECORDS, 1, inner)
    assert payloads(outer) == [inner]


def test_garbage_between_frames_is_one_damage() -> None:
    data = pack(RECORDS, 1, b"a") + b"\0" * 500 + pack(RECORDS, 1, b"b")
    found = list(unpack(data))
    assert [type(each) for each in found] == [Frame, Damage, Frame]
    assert found[1] == Damage(HEADER_SIZE + 1, HEADER_SIZE + 501, torn=False)


@given(st.binary(max_size=400), st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_before_frames_cost_no_frame_behind_them(noise: bytes, good: list[bytes]) -> None:
    data = noise + b"".join(pack(RECORDS, 1, payload) for payload in good)
    assert payloads(data)[-len(good) :] == good or not good
    offsets = [each.end for each in unpack(data)]
    assert offsets == sorted(offsets)
    assert offsets[-1:] == ([len(data)] if data else [])
