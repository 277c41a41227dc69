"""Asynchronous SGD against mini-batch SGD on real processes, every method tuned alike: `asgd bench minibatch`.

`plan` says what is compared, `tuning` chooses step sizes, `measuring` does one real run, `study` does all of it,
`results` keeps it, `predicting` says what the speeds allow, `comparing` makes the rows of `table` and `figures`.
"""
