"""What a job prints, on the disk: whole where it is short, its beginning and its end where it is not."""

from __future__ import annotations

from pathlib import Path

SEGMENT_BYTES = 4 << 20
SEGMENTS = 16
"""So many are kept: the first, where a job says what it does, and the latest, where it says why it ended."""


class JobLog:
    """A log in pieces, `log.<bytes before it>`: readers need not know when the one in the middle goes.

    Args:
        folder (`Path`): Where the pieces lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _segments(self) -> list[tuple[int, Path]]:
        found = [(path.name.partition(".")[2], path) for path in self.folder.glob("log.*")]
        return sorted((int(start), path) for start, path in found if start.isdigit())

    def append(self, data: bytes) -> None:
        segments = self._segments()
        start, path = segments[-1] if segments else (0, self.folder / "log.0")
        size = path.stat().st_size if segments else 0
        if size >= SEGMENT_BYTES:
            start, path = start + size, self.folder / f"log.{start + size}"
            if len(segments) >= SEGMENTS:
                segments[1][1].unlink(missing_ok=True)
        with path.open("ab") as file:
            file.write(data)

    def read(self, offset: int, limit: int) -> tuple[str, int]:
        """Text from an offset on.

        Args:
            offset (`int`): Bytes before it; negative: so many before the end.
            limit (`int`): Bytes at most.

        Returns:
            `tuple[str, int]`: The text, with a line in it where a part was not kept, and the offset that follows.
        """
        segments = self._segments()
        if offset < 0:
            end = segments[-1][0] + segments[-1][1].stat().st_size if segments else 0
            offset = max(0, end + offset)
        pieces, together = [], b""
        for start, path in segments:
            try:
                with path.open("rb") as file:
                    size = file.seek(0, 2)
                    if start + size <= offset:
                        continue
                    file.seek(max(0, offset - start))
                    data = file.read(max(1, limit))
            except FileNotFoundError:  # it was the one in the middle
                continue
            if offset < start:
                pieces += [
                    together.decode("utf-8", "replace"),
                    f"\n({start - offset:,} bytes of the log were not kept)\n",
                ]
                offset, together = start, b""
            together += data  # a character may begin in one and end in the next
            offset, limit = offset + len(data), limit - len(data)
            if limit <= 0 or not data:
                break
        shown = _whole(together)
        return "".join([*pieces, shown.decode("utf-8", "replace")]), offset - len(together) + len(shown)


def _whole(data: bytes) -> bytes:
    """Without the beginning of a character whose end has not come."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return data[:-back] if length > back and len(data) > back else data
    return data
