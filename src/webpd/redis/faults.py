"""What is wrong with a Redis, for the administrator: what happened, and what to do."""

import errno
import re
import socket

from redis.exceptions import InvalidResponse

_ANSWERS = {
    "WRONGPASS": "refuses the user or the password: set those of its ACL file (deploy/redis/users.acl) in {variable}",
    "NOAUTH": "wants a user and a password: set those of its ACL file (deploy/redis/users.acl) in {variable}",
    "NOPERM": "does not let this user do what webpd needs: give it the rights that deploy/redis/users.acl has",
    "LOADING": "is loading its data from disk: it will answer when that is done",
    "OOM": "is full: set a larger maxmemory, and the maxmemory-policy that deploy/redis has for {variable}",
    "MISCONF": "can't write to its disk, and takes no writes until it can: make room there, its log tells more",
    "READONLY": "is a replica and takes no writes: name the primary in {variable}",
    "MASTERDOWN": "is a replica that has lost its primary: name the primary in {variable}",
    "WRONGTYPE": "has a key of ours that somebody else wrote: let no other program write keys that begin with webpd:",
}
"""By the first word of what Redis answers (redis.io/docs, "Redis serialization protocol", simple errors)."""

_OBSTACLES = {
    errno.ECONNREFUSED: "refuses connections: start it, or set its address in {variable}",
    errno.ENOENT: "is not there: start it, or set its socket in {variable}",
    errno.EACCES: "may not be reached by this user: give it access to the socket",
    errno.EHOSTUNREACH: "can't be reached: look at the network and at the address in {variable}",
    errno.ENETUNREACH: "can't be reached: look at the network and at the address in {variable}",
}


def explain(error: BaseException, within: float, variable: str) -> str:
    """Return what to say of a server that gave this error to a call that had ``within`` seconds.

    The same fault gives the same text. ``variable`` is where its URL is set.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TimeoutError):
            return f"does not answer within {within:g} s: it hangs, is overloaded, or the network drops what is sent"
        if isinstance(cause, socket.gaierror):
            return f"can't be found: its name is not known; set its address in {variable}"
        if (number := _errno(cause)) in _OBSTACLES:
            return _OBSTACLES[number].format(variable=variable)
        cause = cause.__cause__ or cause.__context__
    code = _code(error)
    if code in _ANSWERS:
        return f"{_ANSWERS[code].format(variable=variable)} ({code})"
    if isinstance(error, InvalidResponse):
        return f"does not answer as Redis does: set its address in {variable}"
    text = str(error).partition("\n")[0]
    return f"fails ({text or type(error).__name__}): see its log"


def _errno(error: BaseException) -> int | None:
    """Return the number of an OSError, also where redis-py, or a list of addresses tried, has it in words alone."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"\b(?:Error|Errno) (\d+)\b", str(error))
    return int(found[1]) if found else None


def _code(error: BaseException) -> str:
    """Return the first word of what Redis answered; redis-py takes away those that it knows."""
    text = str(error)
    if "user executing the script" in text:  # the one refusal that Redis 7 gives without its code
        return "NOPERM"
    return getattr(error, "status_code", None) or text.partition(" ")[0]
