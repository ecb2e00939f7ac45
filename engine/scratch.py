"""Places in a stream's scratch row, given out again once nothing that lies there is read any more."""

from bisect import insort
from collections.abc import Iterable


class Scratch:
    """First fit over the places that are taken. high: the bytes that the row needs."""

    def __init__(self) -> None:
        self.places: list[tuple[int, int]] = []
        self.high = 0

    def take(self, size: int) -> int:
        """The offset of `size` free bytes."""
        offset = 0
        for start, end in self.places:
            if start - offset >= size:
                break
            offset = end
        insort(self.places, (offset, offset + size))
        self.high = max(self.high, offset + size)
        return offset

    def keep(self, offsets: Iterable[int]) -> None:
        """Frees every place in which none of these offsets lies; a view lies in the place of what it is a view of."""
        living = list(offsets)
        self.places = [(start, end) for start, end in self.places if any(start <= o < end for o in living)]
