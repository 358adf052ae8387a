"""One server process: the webhook, or a handler to compare it with, behind the HTTPS adapter of the end-to-end tests.

`python -m benchmarks.endpoint webhook|floor|constant FOLDER SIZE` prints its port. For each line of its input it
prints the CPU seconds that it has used so far, and it ends at the end of its input. It writes its certificate,
gateway.pem, into FOLDER; SIZE is the review that will be sent.
"""

import json
import sys
import time
from pathlib import Path
from socketserver import StreamRequestHandler
from typing import Any

from benchmarks.admissions import deployed, review_text
from e2e.fakes.adapter import Handler, gateway
from image_mirror import webhook
from image_mirror.cli.emulation import emulated_aws, http_event

ROUTE = "POST /token"
Event = dict[str, Any]


def main(name: str, folder: Path, size: str) -> None:
    """Serve until the input ends."""
    output = sys.stdout  # the handler's own output is discarded
    # The adapter sends head and body by two writes; Nagle's algorithm would delay the second until an acknowledgement.
    StreamRequestHandler.disable_nagle_algorithm = True
    with emulated_aws(), deployed():
        # The answers of all three handlers have the same size.
        constant = _webhook({**http_event({}), "body": review_text(size)})
        assert constant["statusCode"] == 200
        review = json.loads(constant["body"])

        def floor(event: Event) -> Event:
            """Do only what every webhook must do: read the review, and write an answer with its uid."""
            review["response"]["uid"] = json.loads(event["body"])["request"]["uid"]
            return {**constant, "body": json.dumps(review)}

        handlers: dict[str, Handler] = {"webhook": _webhook, "floor": floor, "constant": lambda _: constant}
        answer = handlers[name]

        def handle(event: Event) -> Event:
            adapter.bodies.clear()  # the adapter keeps them for tests; here they would only use memory
            return answer(event)

        with gateway(folder, ROUTE, handle) as adapter:
            print(adapter.url.rpartition(":")[2], file=output, flush=True)
            for _ in sys.stdin:
                print(time.process_time(), file=output, flush=True)


def _webhook(event: Event) -> Event:
    return webhook.handler(event, None)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
