"""What one client may take: of time, of memory, and of the places that there are for connections.

uvicorn itself limits only how long a connection may rest between two requests.
"""

import asyncio
import socket
import struct

import h11
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 128
"""Per server. Where one more comes, the one that has kept us waiting longest makes room for it."""
LONGEST_HEAD = 16 << 10
"""Bytes of a request's line and headers that are waited for; then it is answered 400."""
MOST_BODY = 2 << 20
"""Bytes of a request's body; more is answered 413. What takes a body has narrower bounds of its own."""
REQUEST_TIME = 10.0
"""Seconds in which a request must have come whole, from the connection or from its first byte on."""
IDLE_TIME = 5
"""Seconds that a connection is kept between two requests."""
UNREAD_TIME = 20.0
"""Seconds for which a client may take nothing of what it is sent."""

_AT_ONCE = struct.pack("ii", 1, 0)


class LimitedConnection(H11Protocol):
    """A connection that is cut where its client dawdles, and where others need its place."""

    _incoming: asyncio.TimerHandle | None = None
    _outgoing: asyncio.TimerHandle | None = None
    _rests_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._rests_since = self.loop.time()
        self._time_request()
        if len(self.connections) > MOST_CONNECTIONS:
            others = [one for one in self.connections if isinstance(one, LimitedConnection) and one is not self]
            min(others, key=LimitedConnection._worth)._cut()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_request()

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            super().send_400_response(msg)
        else:  # an answer is on its way already
            self._cut()

    def on_response_complete(self) -> None:
        self._rests_since = self.loop.time()
        super().on_response_complete()
        self._time_request()
        if self.transport.is_closing():
            self._time_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._time_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._incoming, self._outgoing):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def _cut(self) -> None:
        # With a reset: else the kernel would keep what was not sent until the client takes it (socket(7)).
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()

    def _worth(self) -> tuple[bool, float]:
        """Return what tells which connection goes first: one without a request to answer, the longest at rest."""
        answering = self.cycle is not None and not self.cycle.response_complete
        return answering and self.conn.their_state is not h11.SEND_BODY, self._rests_since

    def _time_request(self) -> None:
        """Let the clock run while the client owes a request or the rest of one, and only then."""
        state = self.conn.their_state
        begun = state is h11.IDLE and (self.cycle is None or bool(self.conn.trailing_data[0]))
        if not (begun or state is h11.SEND_BODY):
            if self._incoming is not None:
                self._incoming.cancel()
                self._incoming = None
        elif self._incoming is None:
            self._incoming = self.loop.call_later(REQUEST_TIME, self._cut)

    def _time_reading(self) -> None:
        if self._outgoing is None:
            unread = self.transport.get_write_buffer_size()
            self._outgoing = self.loop.call_later(UNREAD_TIME, self._cut_if_unread, unread)

    def _cut_if_unread(self, before: int) -> None:
        self._outgoing = None
        unread = self.transport.get_write_buffer_size()
        if unread >= before:
            self._cut()
        elif unread:
            self._time_reading()


def bounded(app: ASGIApp) -> ASGIApp:
    """Return an app that answers 413 to bodies of more than ``MOST_BODY``, and lets clients go away in silence."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        announced = dict(scope["headers"]).get(b"content-length", b"0")  # a number: h11 has looked
        if int(announced) > MOST_BODY:
            refusal = PlainTextResponse(_TOO_LONG, 413, {"Connection": "close"})
            await refusal(scope, receive, send)
            return
        received = 0

        async def count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MOST_BODY:
                raise HTTPException(413, _TOO_LONG, {"Connection": "close"})
            return message

        try:
            await app(scope, count, send)
        except ClientDisconnect:
            return

    return answer


_TOO_LONG = f"more than {MOST_BODY} bytes\n"
