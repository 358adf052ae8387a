"""The state of a stack that has seen CodeBuild run many builds at once. A new stack begins with a few."""

import time

from image_mirror.slots import Slots, State, first_slots
from image_mirror.state_item import StateItem
from image_mirror.table import Records


def state_in(records: Records) -> StateItem:
    """Return the state in the same table."""
    return StateItem(records._client, records._table)


def run_twenty_builds(records: Records) -> None:
    """Let the reconciler know that CodeBuild runs twenty builds at once, and one in the fast lane, if there is one."""
    state = State(at=int(time.time() * 1000), main=Slots(runs=20, most=30, share=15), fast=first_slots(1))
    assert state_in(records).write(state, state_in(records).read())
