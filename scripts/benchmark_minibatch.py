#!/usr/bin/env python
"""Asynchronous SGD against mini-batch SGD on real processes: the same as `asgd bench minibatch`.

scripts/benchmark_minibatch.py --preset quick
scripts/benchmark_minibatch.py --help
"""

from __future__ import annotations

import sys

from asgd.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["bench", "minibatch"]
    main()
