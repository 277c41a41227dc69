"""`asgd chaos`: a real cluster whose processes are killed and stopped, and whose connections are delayed, cut and left
half open, by a script made from a seed; and what became of it.
"""
