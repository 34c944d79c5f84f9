"""What a donor sends waits in an outbox of its own, in order and within bounds.

Rulings are those of docs/protocol.md.
"""

from wallaroo.dataflow.barrier import Barrier
from wallaroo.dataflow.consignment import FRAME, ROOM, Consignment
from wallaroo.state.parcels import Entries, Last, Parcel, UpTo, decode_parcel


def consignment() -> tuple[Consignment, list[Consignment]]:
    woken: list[Consignment] = []
    return Consignment(3, woken.append), woken


def test_parcels_come_out_in_order_and_the_stream_is_told() -> None:
    made, woken = consignment()
    parcels: list[Parcel] = [Entries([b"k"], [b"v"]), UpTo(4), Entries([b"k"], [b"w"]), Last(1)]
    for parcel in parcels:
        made.add(parcel)
    assert woken == [made] * 4
    taken = made.take()
    assert isinstance(taken, list)
    assert [decode_parcel(frame) for frame in taken] == parcels
    assert made.take() is None


def test_its_size_is_said_and_much_of_it_leaves_no_room_until_it_is_taken() -> None:
    made, _ = consignment()
    value = bytes(ROOM // 4)
    sizes = []
    while made.has_room:
        sizes.append(made.add(Entries([b"k"], [value])))
    assert sum(sizes) >= ROOM
    assert all(size > len(value) for size in sizes)
    while made.take():
        pass
    assert made.has_room


def test_it_is_taken_in_pieces() -> None:
    made, _ = consignment()
    for _ in range(8):
        made.add(Entries([b"k"], [bytes(FRAME // 2)]))
    counts = []
    while taken := made.take():
        assert isinstance(taken, list)
        counts.append(len(taken))
    assert counts == [2, 2, 2, 2]


def test_what_comes_without_room_is_taken_too() -> None:
    """Ruling 15: a last delta is exempt from all bounds."""
    made, _ = consignment()
    made.add(Entries([b"k"], [bytes(2 * ROOM)]))
    assert not made.has_room
    made.add(Last(1))
    assert made.take()
    assert made.take()


def test_it_ends_once_behind_all_that_was_added() -> None:
    made, woken = consignment()
    made.add(Last(1))
    made.end()
    assert len(woken) == 2
    assert isinstance(made.take(), list)
    assert made.take() == Barrier(0, final=True)
    assert made.take() is None
