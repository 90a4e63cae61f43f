"""The check of what clients draw."""

import re
from typing import Any

WIDTH, HEIGHT = 1600, 1000  # of a board, in its own pixels
MAX_WIDTH, MAX_POINTS = 40, 64  # of a stroke
KEY, COLOR = re.compile("[0-9a-f]{32}"), re.compile("#[0-9a-f]{6}")


def checked(stroke: Any) -> dict[str, Any] | None:
    """Return the parts of a stroke that we know, or `None` if it is none. `clear` stands for an empty board."""
    match stroke:
        case {"key": str(key), "clear": True} if KEY.fullmatch(key):
            return {"key": key, "clear": True}
        case {"key": str(key), "color": str(color), "width": width, "points": [_, *_] as points} if (
            KEY.fullmatch(key)
            and COLOR.fullmatch(color)
            and is_within(width, 1, MAX_WIDTH)
            and len(points) <= MAX_POINTS
            and all(is_point(point) for point in points)
        ):
            return {"key": key, "color": color, "width": width, "points": points}
    return None


def is_point(value: object) -> bool:
    match value:
        case [x, y]:
            return is_within(x, 0, WIDTH) and is_within(y, 0, HEIGHT)
    return False


def is_within(value: object, lowest: int, highest: int) -> bool:
    return type(value) is int and lowest <= value <= highest
