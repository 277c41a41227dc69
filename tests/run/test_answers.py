"""What a worker keeps until the server has it."""

from __future__ import annotations

from asgd.net.messages import Gradient
from asgd.run.answers import AT_MOST, Answers


def gradient(job):
    return Gradient(job, 0, 1.0, 8, 0.1, 0.0, 0.0, 0.0)


def test_an_answer_that_is_taken_takes_those_before_it_along():
    answers = Answers()
    for job in (3, 9, 4):
        answers.sent(gradient(job), memoryview(b"x"))
    answers.taken(-1)
    answers.taken(77)
    assert answers.jobs == (3, 9, 4)
    answers.taken(9)
    assert answers.jobs == (4,)
    answers.taken(9)
    answers.taken(4)
    assert answers.jobs == () and list(answers) == []


def test_only_the_newest_is_where_it_was_computed():
    answers, memory = Answers(), bytearray(b"aaaa")
    answers.sent(gradient(1), memoryview(memory))
    assert [payload.obj is memory for _, payload in answers] == [True], "nothing is copied before it must be"
    answers.secure()
    answers.secure()
    memory[:] = b"bbbb"
    answers.sent(gradient(2), memoryview(memory))
    assert [bytes(payload) for _, payload in answers] == [b"aaaa", b"bbbb"]
    answers.taken(2)
    answers.secure()
    assert list(answers) == []


def test_what_is_kept_has_a_bound():
    answers = Answers()
    for job in range(AT_MOST + 3):
        answers.sent(gradient(job), memoryview(b"x"))
    assert answers.jobs == tuple(range(3, AT_MOST + 3))
