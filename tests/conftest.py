"""What every test has: hypothesis profiles, Ctrl-C, and no core files, since a core holds the keys of the process."""

from __future__ import annotations

import os
import resource
import signal

from hypothesis import settings

# RLIMIT_CORE is inherited, so it holds for the commands that tests run too.
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

# A job in a shell's background ignores SIGINT, and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadlines: the time of one example says more about the machine than about the code. In CI the examples are the same
# in each run, so that a red build is red again; `--hypothesis-profile=thorough` is for looking further.
settings.register_profile("small", max_examples=60, deadline=None, derandomize="CI" in os.environ)
settings.register_profile("thorough", max_examples=5000, deadline=None)
settings.load_profile("small")
