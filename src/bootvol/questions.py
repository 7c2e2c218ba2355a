"""Calls to plugins with a timeout, for callers who wait for the answer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from bootvol.threads import StillRunning, at_most

#: Seconds that a plugin may take to answer.
PATIENCE: Final = 10.0

T = TypeVar("T")


class Questions:
    """Calls a plugin, and waits for a limited time.

    A call that was not answered in time is not repeated until its answer has come. While the plugin
    hangs, each repeated call would occupy one more thread, or one more place in the queue for a
    thread.

    :param clock: the reactor.
    :param patience: timeout in seconds.
    """

    def __init__(self, clock: IReactorTime, patience: float = PATIENCE) -> None:
        self._clock = clock
        self._patience = patience
        self._unanswered: set[Hashable] = set()

    async def ask(
        self, topic: Hashable, question: Callable[[], Coroutine[Deferred[object], object, T]]
    ) -> T:
        """Return the plugin's answer.

        :param topic: a key that is equal for equal questions.
        :raises StillRunning: if the plugin does not answer in time, or has not yet answered an
            earlier call with the same topic.
        """
        if topic in self._unanswered:
            raise StillRunning
        asked = Deferred.fromCoroutine(question())
        try:
            return await at_most(self._clock, self._patience, asked)
        except StillRunning:
            self._unanswered.add(topic)
            asked.addBoth(lambda _: self._unanswered.discard(topic))
            raise
