"""One client's side of the conversation with a daemon, sans-IO: calls to bytes, bytes to replies.

A reply finds its call by the id, whatever the order; an id is never used twice. A reply to a call that nobody
waits for any more is dropped, so that whoever gives a call up leaves the conversation in step; of long calls that
were given up it counts how many the daemon still keeps. What carries the bytes, and how long anybody waits, is the
business of ``blocking`` and ``on_trio``.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Final, Generic, TypeVar

import attrs

from taskd import errors, wire
from taskd.client import refusals
from taskd.errors import BadParams, Refused, TaskdError, WireError
from taskd.model import JSON

T = TypeVar("T")

# A client trusts its daemon: a reply may be as long as a page of records with long params.
LONGEST_REPLY: Final = 1 << 30
DEEPEST_REPLY: Final = 1000

# The calls that a daemon is long in answering. It keeps so many of one connection (``requests_in_flight``, 256
# where nobody has set it), and then reads nothing more.
LONG: Final = frozenset({"Task.wait", "Task.recover"})

# Beside so many calls that were given up and are not answered yet, no long one is made.
GIVEN_UP: Final = 64


@attrs.frozen
class Call(Generic[T]):
    """A call of ``method``; ``read`` makes of its bare result what the caller gets.

    ``again``: it may be made twice, so one that broke with its connection is made again where that is wanted.
    """

    method: str
    params: Mapping[str, JSON]
    read: Callable[[JSON], T]
    again: bool = False


@attrs.frozen
class Notification:
    """What the daemon says without being asked."""

    method: str
    params: JSON


@attrs.define(eq=False, repr=False)
class Conversation:
    """The calls in flight, the replies that have come for them, and the notifications, oldest first.

    Unlike a reply, which somebody waits for, notifications pile up until they are taken. ``answered`` says that
    a daemon has replied at all.
    """

    notifications: deque[Notification] = attrs.field(factory=deque, init=False)
    answered: bool = attrs.field(default=False, init=False)
    _ids: Iterator[int] = attrs.field(factory=lambda: count(1), init=False)
    _replies: dict[int, JSON | TaskdError | None] = attrs.field(factory=dict, init=False)
    # Bytes of each call that is not answered, also where nobody waits for that any more.
    _sizes: dict[int, int] = attrs.field(factory=dict, init=False)
    _framing: wire.Framing = attrs.field(factory=lambda: wire.JsonStream(LONGEST_REPLY, DEEPEST_REPLY), init=False)

    def __repr__(self) -> str:
        return f"<Conversation {len(self._replies)} in flight>"

    def room(self, call: Call[T]) -> bool:
        """Whether the call may be made, or has to wait for replies to others that were given up."""
        return call.method not in LONG or len(self._sizes.keys() - self._replies.keys()) < GIVEN_UP

    def call(self, call: Call[T]) -> tuple[int, bytes]:
        """The id of a new call and the bytes that make it.

        Raises:
            BadParams: JSON cannot say the params; there is no call.
        """
        id = next(self._ids)
        request = {"jsonrpc": "2.0", "method": call.method, "params": call.params, "id": id}
        try:
            data = self._framing.reply(request)
        except TypeError as error:
            raise BadParams("params", f"JSON cannot say it: {error}") from None
        self._replies[id], self._sizes[id] = None, len(data)
        return id, data

    def receive(self, data: bytes) -> None:
        """Take what has come.

        Raises:
            Refused: the daemon refuses the whole conversation.
            WireError: it refuses a message, which is the end for all others; or what has come is nothing that a
                daemon says. Both end the conversation, but for replies that may be taken.
        """
        for message in self._framing.receive(data):
            if isinstance(message, WireError):
                raise message
            match message:
                case {"id": int(id), "result": result}:
                    self._replied(id, [result])
                case {"id": int(id), "error": error}:
                    self._replied(id, refusal(error))
                case {"id": None, "error": error}:
                    raise self._ended(refusal(error))
                case {"method": str(method), **rest} if "id" not in rest:
                    self.notifications.append(Notification(method, rest.get("params")))
                case _:
                    raise errors.InvalidRequest("what answers does not speak as taskd does")

    def _replied(self, id: int, reply: JSON) -> None:
        self.answered = True
        self._sizes.pop(id, None)
        if id in self._replies:
            self._replies[id] = reply

    def _ended(self, refused: Refused) -> Refused | WireError:
        """What is raised for a refusal without an id. Of a message, it has not come to read the id: then it is the
        longest that it means, for nothing else is wrong with what we send.
        """
        if refused.error not in (errors.InvalidRequest.name, errors.ParseError.name):
            return refused
        longest = max(self._sizes, key=self._sizes.__getitem__, default=None)
        if longest in self._replies:
            self._replies[longest] = refused
        return errors.InvalidRequest(f"the connection ended with a message that was refused: {refused}")

    def has_reply(self, id: int) -> bool:
        """Whether ``take`` may be called."""
        return self._replies[id] is not None

    def take(self, id: int) -> JSON:
        """The bare result of a call that has its reply.

        Raises:
            Refused: the daemon did not grant it.
        """
        match self._replies.pop(id):
            case TaskdError() as error:
                raise error
            case [result]:
                return result
        raise AssertionError("there is no reply yet")

    def forget(self, id: int) -> None:
        """Nobody waits for the reply any more."""
        self._replies.pop(id, None)


def refusal(error: JSON) -> Refused:
    """An error reply as the error that it is to a caller, with a sentence for people."""
    if not isinstance(error, dict):
        return Refused("Internal_error", str(error))
    number, message, data = error.get("code"), str(error.get("message", "")), error.get("data")
    details = tuple(map(str, data)) if isinstance(data, list) else () if data is None else (str(data),)
    if number == 1:
        named = [kind for kind in _kinds() if kind.name == message]
        sentence = _sentence(named, details) or f"{message}: {', '.join(details)}"
        return refusals.BY_NAME.get(message, Refused)(message, sentence, details)
    numbered = [kind for kind in _kinds() if kind.number == number]
    name = numbered[0].name if numbered else str(number)
    return refusals.BY_NAME.get(name, Refused)(name, _sentence(numbered, details) or message, details)


def hung_up(socket: int) -> bool:
    """Whether whoever is at the other end of a socket, given by its file descriptor, has closed it."""
    poll = select.poll()
    poll.register(socket, select.POLLRDHUP)
    return bool(poll.poll(0))


def reason(error: Exception) -> str:
    """Why there is no daemon, in the words of the operating system where they are its own."""
    return getattr(error, "strerror", None) or str(error)


def _sentence(kinds: list[type[TaskdError]], details: tuple[str, ...]) -> str | None:
    """The sentence of that one of ``kinds`` whose fields ``details`` fill; a newer daemon may say more."""
    for kind in kinds:
        if details and len(attrs.fields(kind)) == len(details):
            return str(kind(*details))
    return None


def _kinds(root: type[TaskdError] = TaskdError) -> Iterator[type[TaskdError]]:
    for kind in root.__subclasses__():
        yield kind
        yield from _kinds(kind)
