"""What a worker keeps of its answers until the server is known to have them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from asgd.net.messages import Gradient

AT_MOST = 4


class Answers:
    """Answers that were sent and of whose arrival there is no sign yet, oldest first; the server takes them in order.

    The newest stays where it was computed until `secure` copies it, so that a worker with one job at a time copies
    nothing. No more than AT_MOST are kept; an older one is forgotten, and if it did not arrive its job is lost.

    Example:
        >>> from asgd.net.messages import Gradient
        >>> answers, memory = Answers(), bytearray(b"abcd")
        >>> for job in (5, 6):
        ...     answers.secure()
        ...     answers.sent(Gradient(job, 2, 1.0, 8, 0.1, 0.0, 0.0, 0.0), memoryview(memory))
        >>> memory[:] = b"efgh"
        >>> [(gradient.job, bytes(payload)) for gradient, payload in answers]
        [(5, b'abcd'), (6, b'efgh')]
        >>> answers.taken(5)
        >>> answers.jobs
        (6,)
    """

    def __init__(self) -> None:
        self._kept: deque[tuple[Gradient, memoryview]] = deque(maxlen=AT_MOST)
        self._is_secure = True  # whether the newest is a copy

    def __iter__(self) -> Iterator[tuple[Gradient, memoryview]]:
        return iter(list(self._kept))

    @property
    def jobs(self) -> tuple[int, ...]:
        return tuple(gradient.job for gradient, _ in self._kept)

    def sent(self, gradient: Gradient, payload: memoryview) -> None:
        """Keep an answer; its memory must not change before `secure` was called."""
        self._kept.append((gradient, payload))
        self._is_secure = False

    def secure(self) -> None:
        """Copy what is still where it was computed: that memory is about to be used again."""
        if self._kept and not self._is_secure:
            gradient, payload = self._kept.pop()
            self._kept.append((gradient, memoryview(bytearray(payload))))
        self._is_secure = True

    def taken(self, job: int) -> None:
        """The server has the answer to a job, and all that were sent before it."""
        if job in self.jobs:
            while self._kept.popleft()[0].job != job:
                pass
