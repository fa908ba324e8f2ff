"""Dots in character cells: eight a cell in braille, one a cell in ASCII. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Braille's bits by row and column of a cell (Unicode, chapter 21.1)."""
_BRAILLE = 0x2800

Cell = tuple[str, str]
"""A character and the name of its colour, which may be empty."""


@dataclass
class Canvas:
    columns: int
    rows: int
    braille: bool = True

    def __post_init__(self) -> None:
        self._bits = [[0] * self.columns for _ in range(self.rows)]
        self._cells = [[(" ", "")] * self.columns for _ in range(self.rows)]
        self._texts: dict[tuple[int, int], Cell] = {}

    @property
    def width(self) -> int:
        """In dots."""
        return self.columns * (2 if self.braille else 1)

    @property
    def height(self) -> int:
        return self.rows * (4 if self.braille else 1)

    def dot(self, x: int, y: int, mark: str, colour: str) -> None:
        """`y` from the top; `mark` is the character in ASCII. Outside, nothing happens."""
        if not (0 <= x < self.width and 0 <= y < self.height):
            return
        if not self.braille:
            self._cells[y][x] = (mark, colour)
            return
        row, column = y // 4, x // 2
        self._bits[row][column] |= _DOTS[y % 4][x % 2]
        self._cells[row][column] = (chr(_BRAILLE + self._bits[row][column]), colour)

    def line(self, x0: int, y0: int, x1: int, y1: int, mark: str, colour: str) -> None:
        """All dots between two, both inside."""
        length = max(abs(x1 - x0), abs(y1 - y0), 1)
        for number in range(length + 1):
            x = x0 + round((x1 - x0) * number / length)
            y = y0 + round((y1 - y0) * number / length)
            self.dot(x, y, mark, colour)

    def text(self, column: int, row: int, cell: Cell, *, over: bool = True) -> None:
        """A character in the place of a cell's dots; not `over` only where there are none."""
        inside = 0 <= column < self.columns and 0 <= row < self.rows
        if inside and (over or self._cells[row][column][0] == " "):
            self._texts[column, row] = cell

    def cells(self) -> list[list[Cell]]:
        return [
            [
                self._texts.get((column, row), self._cells[row][column])
                for column in range(self.columns)
            ]
            for row in range(self.rows)
        ]
