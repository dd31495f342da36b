"""A receiving process: takes connections from the node, serves them, tells what it did, and ends with the node.

python -m qcnode.intake.receiver ORDERS NEWS FIGURES    (descriptors that the node handed down)
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import socket
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import NoReturn

from qcnode.errors import trail
from qcnode.intake import channel
from qcnode.intake.association import Answer
from qcnode.intake.associations import AssociationEvent
from qcnode.intake.completeness import AssociationState
from qcnode.intake.dimse import Request
from qcnode.intake.reception import Reception, tls_of
from qcnode.intake.room import MEGABYTE, Figures, Room
from qcnode.intake.spool import Spool
from qcnode.intake.storing import Received

log = logging.getLogger(__name__)


class Node:
    """The node at the other end of the channel."""

    def __init__(self, news: Connection) -> None:
        self._news = news
        self._telling = threading.Lock()
        self._questions = itertools.count()
        self._asked: dict[int, Future[bool | Answer]] = {}

    def tell(self, news: channel.News) -> None:
        """Returns when the node will know it, even if this process ends now."""
        with self._telling:
            try:
                self._news.send(news)
            except OSError:
                end(1)  # the node is gone: nothing may be answered any more

    def opened(self, number: int) -> bool:
        """Whether there may be one more; it counts from now on."""
        question, answer = self._question()
        self.tell(channel.Opening(question, number))
        return bool(answer.result())

    def arrived(self, number: int, one: Received) -> None:
        """An instance is in the spool for good; its sender does not know yet."""
        self.tell(channel.Arrived(number, one))

    def ended(self, number: int, state: AssociationState) -> None:
        """The association is over; it counts no more."""
        self.tell(channel.Ended(number, state))

    def happened(self, number: int, event: AssociationEvent) -> None:
        """For the log and the record."""
        self.tell(channel.Happened(number, event))

    def perform(
        self, request: Request, transfer_syntax: str, data: Sequence[bytes | memoryview], calling_ae: str
    ) -> Answer:
        """Take a scanner's word on its procedure step; the ledger is the node's."""
        question, answer = self._question()
        self.tell(channel.Step(question, request, transfer_syntax, b"".join(data), calling_ae))
        found = answer.result()
        assert isinstance(found, Answer)
        return found

    def left(self, number: int) -> None:
        """The connection is closed."""
        self.tell(channel.Left(number))

    def replied(self, reply: channel.Reply) -> None:
        """A question was answered."""
        asked = self._asked.pop(reply.question)
        if reply.answer is None:
            asked.set_exception(RuntimeError("The node failed; see its log."))
        else:
            asked.set_result(reply.answer)

    def _question(self) -> tuple[int, Future[bool | Answer]]:
        number, answer = next(self._questions), Future[bool | Answer]()
        self._asked[number] = answer
        return number, answer


class _ToNode(logging.Handler):
    """The node's log is this process's too."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args, record.exc_info = record.getMessage(), None, None
        self._node.tell(channel.Logged(record))


def main() -> NoReturn:
    """Serve until the node says that it is enough, or is no more."""
    orders, node = socket.socket(fileno=int(sys.argv[1])), Node(Connection(int(sys.argv[2]), readable=False))
    begin = pickle.loads(orders.recv(channel.LARGEST_ORDER_BYTES))  # noqa: S301 - the node's
    _log_to(node, begin.log_level)
    try:
        _receive(orders, node, begin)
    except Exception as error:  # the node takes what is left, and starts another
        log.error("receiving_failed why=%s where=%r", type(error).__name__, trail(error))
    end(1)


def _receive(orders: socket.socket, node: Node, begin: channel.Begin) -> None:
    settings, figures = begin.settings, Figures(Room.FIRST + begin.processes, int(sys.argv[3]))
    room = Room(begin.folder, settings.minimum_free_mb * MEGABYTE, figures, begin.process)
    reception = Reception(settings, Spool(begin.folder), room, node, offers_steps=begin.offers_steps)
    tls = tls_of(settings)
    node.tell(channel.Ready())
    while True:
        message, descriptors, _, _ = socket.recv_fds(orders, channel.LARGEST_ORDER_BYTES, 1)
        if not message:
            return
        match pickle.loads(message):  # noqa: S301 - the node's
            case channel.Serve(number, address, secure):
                reception.serve(socket.socket(fileno=descriptors[0]), address, number, tls if secure else None)
            case channel.Reply() as reply:
                node.replied(reply)
            case channel.Stop(drain_seconds):
                threading.Thread(target=_stop, args=(reception, drain_seconds), daemon=True).start()


def end(code: int) -> NoReturn:
    """End at once: no thread answers anything any more."""
    os._exit(code)


def _stop(reception: Reception, drain_seconds: float) -> None:
    reception.stop(drain_seconds)
    end(0)  # what it told is in the pipe


def _log_to(node: Node, level: int) -> None:
    """Our own lines alone: those of libraries may quote elements of a header."""
    logging.getLogger().addHandler(logging.NullHandler())
    ours = logging.getLogger("qcnode")
    ours.addHandler(_ToNode(node))
    ours.setLevel(level)


if __name__ == "__main__":
    main()
