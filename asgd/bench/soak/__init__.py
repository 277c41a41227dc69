"""`asgd bench soak`: a real cluster for an hour, with workers that join and leave; does anything grow, leak or stay?

`course` runs it, `script` decides who joins and leaves and when, `sampling` reads what the processes use, `verdict`
says whether that is flat, `after` looks at what is left and at the books, `picture` draws it.
"""
