"""One server process: the webhook, or what it is compared with, behind the HTTPS adapter of the end-to-end tests.

`python -m benchmarks.endpoint webhook|floor|constant FOLDER SIZE` prints its port; then, for each line of its input,
the CPU seconds that it has used so far. It ends with its input. FOLDER gets the certificate, gateway.pem; SIZE names
the review that will be sent.
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
    output = sys.stdout  # the handler's goes nowhere
    # The adapter sends head and body by two writes, and by Nagle's algorithm the second waits for an acknowledgement.
    StreamRequestHandler.disable_nagle_algorithm = True
    with emulated_aws(), deployed():
        # The answers of all three have the same bytes, so that all send as much.
        constant = _webhook({**http_event({}), "body": review_text(size)})
        assert constant["statusCode"] == 200
        review = json.loads(constant["body"])

        def floor(event: Event) -> Event:
            """Do what no webhook can leave out: read the review, and write an answer that has its uid."""
            review["response"]["uid"] = json.loads(event["body"])["request"]["uid"]
            return {**constant, "body": json.dumps(review)}

        handlers: dict[str, Handler] = {"webhook": _webhook, "floor": floor, "constant": lambda _: constant}
        answer = handlers[name]

        def handle(event: Event) -> Event:
            adapter.bodies.clear()  # which tests look at; here they would only grow
            return answer(event)

        with gateway(folder, ROUTE, handle) as adapter:
            print(adapter.url.rpartition(":")[2], file=output, flush=True)
            for _ in sys.stdin:
                print(time.process_time(), file=output, flush=True)


def _webhook(event: Event) -> Event:
    return webhook.handler(event, None)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
