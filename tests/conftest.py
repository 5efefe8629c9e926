"""How Hypothesis runs: with no deadline, since machines are noisy; in CI, the same cases always.

CI is whoever sets the variable CI, as hosted runners and `.ci/run` do. And the tests that press
Ctrl-C start from a process that hears it, which one that a shell put into the background does not.
pytester, with which the plugin's tests run tests, has to be asked for here.
"""

import os
import signal

from hypothesis import settings

pytest_plugins = "pytester"

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
signal.signal(signal.SIGINT, signal.default_int_handler)
