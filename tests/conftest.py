"""For every test: the fixtures of `support`, and Ctrl-C works as in a terminal."""

import os
import signal

pytest_plugins = ("support.clock", "support.cloud", "support.operators", "support.ecr_registry", "support.waiting_pods")

os.environ["IMAGE_MIRROR_CONFIG"] = os.devnull  # the tests must not use the developer's own accounts

# If a shell starts the tests in the background, they ignore SIGINT, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
