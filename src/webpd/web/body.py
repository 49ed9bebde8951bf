"""What a request brings."""

import json

from starlette.requests import Request

_WANTED = 'send {"paths": ["/…", …]}'


def is_json(request: Request) -> bool:
    """Tell whether the request says that it brings JSON: no page of another site can say that unasked."""
    kind: str = request.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower() == "application/json"


async def read_body(request: Request, most: int) -> bytes | None:
    """Return what the request brings; None where it has more than that many bytes, and the rest is not read."""
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > most:
            return None
        parts.append(part)
    return b"".join(parts)


def paths_in(body: bytes) -> list[str]:
    """Return the paths of ``{"paths": [path, …]}``, with bytes that are not UTF-8 as ``os.fsdecode`` has them.

    Raises ``ValueError``, and says what is wrong; ``RecursionError`` where it is nested too deeply.
    """
    try:
        told = json.loads(body.decode("utf-8", "surrogateescape"))
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error}): {_WANTED}") from error
    paths = told.get("paths") if isinstance(told, dict) else None
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ValueError(f"not of the form wanted: {_WANTED}")
    return paths
