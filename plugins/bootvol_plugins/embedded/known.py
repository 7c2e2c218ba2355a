"""The users who have logged in, each with a network: guesses from elsewhere do not delay them.

The pairs are in memory, and in a file for the next start.  Otherwise strangers could keep all users
out after a restart of the daemon.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from bootvol import files, reading
from bootvol.threads import Threads

#: Number of remembered pairs.  Beyond this number, the pair with the oldest log-in is dropped.
MOST: Final = 10_000
#: Number of remembered pairs of one user, who must not drive out all others.
MOST_OF_A_USER: Final = 100
#: Length in bytes of a pair: a digest of the user, then one of the user and the network.
_LENGTH: Final = 32
_OF_USER: Final = slice(_LENGTH // 2)


class Known:
    """A store of pairs of user and network.

    Call all methods from the reactor thread only.

    :param path: the file, which others may not read.
    """

    _log = Logger()

    def __init__(self, path: Path, threads: Threads) -> None:
        """Load the file.  Blocks on the disk.  Without a valid file, no pair is known."""
        self._path = path
        self._threads = threads
        self._pairs = OrderedDict.fromkeys(self._load())
        self._is_writing = False
        self._is_written = True
        self._fails = False

    def __contains__(self, pair: bytes) -> bool:
        return pair in self._pairs

    def add(self, pair: bytes) -> None:
        """Remember a pair.  The file has a new pair a moment later, if the disk does not fail.

        :param pair: two digests in 32 bytes.
        """
        if pair not in self._pairs:
            self._make_room(pair)
        self._is_written = self._is_written and pair in self._pairs
        self._pairs[pair] = None
        self._pairs.move_to_end(pair)
        if not self._is_written and not self._is_writing:
            self._is_writing = True
            Deferred.fromCoroutine(self._write())

    def _make_room(self, pair: bytes) -> None:
        """Forget the oldest log-in of the user, or of all users, if there are too many."""
        of_user = [each for each in self._pairs if each[_OF_USER] == pair[_OF_USER]]
        if len(of_user) >= MOST_OF_A_USER:
            del self._pairs[of_user[0]]
        elif len(self._pairs) >= MOST:
            self._pairs.popitem(last=False)

    async def _write(self) -> None:
        try:
            # One write stores all pairs that have come during the last one.
            while not self._is_written:
                self._is_written = True
                await self._threads.run(files.replace, self._path, b"".join(self._pairs))
        except OSError as error:
            # The next log-in tries again.
            self._is_written = False
            self._note(str(error))
        else:
            self._note("")
        finally:
            self._is_writing = False

    def _note(self, failure: str) -> None:
        """Log the first failure in a row, and the end of the row."""
        if failure and not self._fails:
            self._log.error("{path}: {failure}", path=str(self._path), failure=failure)
        elif self._fails and not failure:
            self._log.info("{path}: the file is written again", path=str(self._path))
        self._fails = bool(failure)

    def _load(self) -> list[bytes]:
        try:
            content = reading.content(self._path)
        except FileNotFoundError:
            return []
        except OSError as error:
            self._log.error("{path}: {error}", path=str(self._path), error=error)
            return []
        found = [content[at : at + _LENGTH] for at in range(0, len(content), _LENGTH)]
        return [each for each in found if len(each) == _LENGTH][-MOST:]
