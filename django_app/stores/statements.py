"""What is said to PostgreSQL again and again, on a connection of our own.

The driver's cursor works out anew for each execution what follows from the statement alone, and waits for an answer
for ever. Here the driver's lower layer is used, which it documents: a statement is learned once, prepared
when it comes back, and no answer is waited for longer than a bound.
"""

from __future__ import annotations

import itertools
import re
import select
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg import Connection, OperationalError, abc
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format, TransactionStatus

#: So many statements are remembered.
_MOST: Final = 200
_WELL: Final = frozenset({ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK})
_PLACE: Final = re.compile("%s|%%")


class Silence(OperationalError):
    """The server did not answer in time. What was said may be done all the same."""

    is_silence = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement returned: like a cursor, of which all rows have been fetched."""

    rows: Sequence[tuple[Any, ...]]
    rowcount: int

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows)

    def fetchall(self) -> Sequence[tuple[Any, ...]]:
        """Return the rows."""
        return self.rows

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the first row; None: there is none."""
        return self.rows[0] if self.rows else None


@dataclass(slots=True)
class _Known:
    """A statement, what knows how to say its parameters and read its rows, and how often it was said with which types."""

    text: bytes
    formats: list[PyFormat]
    transformer: abc.Transformer
    uses: dict[tuple[int, ...], int] = field(default_factory=dict)
    names: dict[tuple[int, ...], bytes] = field(default_factory=dict)


class Statements:
    """Says statements on `connection`, of the driver, which nobody else uses meanwhile.

    `context` is what says how values are written and read. `within`: seconds for which the server may be silent; then
    `Silence` is raised, and the connection is of no use any more. A statement is prepared when it has been said
    `prepare_after` times; those that were not said for the longest time are forgotten.
    """

    def __init__(self, connection: Connection[Any], context: Any, *, within: float, prepare_after: int) -> None:
        self._connection = connection
        self._server = connection.pgconn
        self._context = context
        self._within = within
        self._prepare_after = prepare_after
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._forgotten: list[bytes] = []
        self._numbers = itertools.count(1)
        self._answers = select.poll()
        self._answers.register(self._server.socket, select.POLLIN)

    def execute(self, statement: str, params: Sequence[Any]) -> Answer:
        """Run one statement, with `%s` for each parameter; return what it returned. Errors are the driver's."""
        known = self._recall(statement) or self._learn(statement, len(params))
        transformer = known.transformer
        values = transformer.dump_sequence(params, known.formats)
        types, formats = transformer.types or (), transformer.formats
        if not self._connection.autocommit:
            self._begin()
        name = known.names.get(types) or self._prepared(known, types)
        if name is None:
            self._server.send_query_params(known.text, values, types, formats, Format.TEXT)
        else:
            self._server.send_query_prepared(name, values, formats, Format.TEXT)
        result = self._result()
        rows: Sequence[tuple[Any, ...]] = ()
        if result.ntuples:
            transformer.set_pgresult(result)
            rows = transformer.load_rows(0, result.ntuples, tuple)
            transformer.set_pgresult(None)
        return Answer(rows, result.command_tuples or 0)

    def _recall(self, statement: str) -> _Known | None:
        known = self._known.get(statement)
        if known is not None:
            self._known.move_to_end(statement)
        return known

    def _learn(self, statement: str, number: int) -> _Known:
        numbers = itertools.count(1)
        text = _PLACE.sub(lambda found: f"${next(numbers)}" if found[0] == "%s" else "%", statement)
        known = self._known[statement] = _Known(text.encode(), [PyFormat.AUTO] * number, Transformer(self._context))
        if len(self._known) > _MOST:
            _, forgotten = self._known.popitem(last=False)
            self._forgotten += forgotten.names.values()
        return known

    def _prepared(self, known: _Known, types: tuple[int, ...]) -> bytes | None:
        """Return the name of a statement that has just been prepared, if it is time for that."""
        uses = known.uses[types] = known.uses.get(types, 0) + 1
        if uses <= self._prepare_after:
            return None
        while self._forgotten:
            self._ask(b"DEALLOCATE " + self._forgotten.pop())
        name = f"lrp_{next(self._numbers)}".encode()
        self._server.send_prepare(name, known.text, types)
        self._result()
        known.names[types] = name
        return name

    def _begin(self) -> None:
        """Begin the transaction that the driver would begin now."""
        if self._server.transaction_status == TransactionStatus.IDLE:
            self._ask(b"BEGIN")

    def _ask(self, text: bytes) -> None:
        self._server.send_query_params(text, None)
        self._result()

    def _result(self) -> Any:
        """Wait for the one result of what was sent; raise what the server says is wrong with it."""
        self._send()
        result = None
        while (following := self._next()) is not None:
            result = following
        if result is None or self._server.status != ConnStatus.OK:
            raise OperationalError("The connection to the server was lost.")
        if result.status not in _WELL:
            raise error_from_result(result, self._connection.info.encoding)
        return result

    def _send(self) -> None:
        while self._server.flush():
            # The server may be waiting for us to read before it reads on.
            both = select.poll()
            both.register(self._server.socket, select.POLLIN | select.POLLOUT)
            self._wait(both)
            self._server.consume_input()

    def _next(self) -> Any:
        while self._server.is_busy():
            self._wait(self._answers)
            self._server.consume_input()
        return self._server.get_result()

    def _wait(self, poll: Any) -> None:
        if not poll.poll(self._within * 1000):
            raise Silence(f"The server did not answer within {self._within:g} s.")
