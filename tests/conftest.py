"""What every test has: the fixtures of `support`, and Ctrl-C as in a terminal."""

import signal

pytest_plugins = ("support.clock", "support.cloud", "support.operators")

# A suite that a shell started in the background ignores SIGINT, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
