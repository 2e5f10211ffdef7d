"""Load on examples/serve.py from this process: rates, latencies, and the server's memory.

    python -m tests.benchmarks.serve_load [MODEL] [--clients 1,8,32] [--requests 500] [--rounds 3]

Run it from the root of the repository. Clients send the demo photos in turn. After a 503 they wait and send again, and
the time of a request includes that. Every request must be answered with 200 in the end, and the server's own counts
must agree.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from fcos_cli.resources import demo_photos
from fcos_cli.runtime.open import find_artifact
from tests.benchmarks.load import print_load
from tests.test_serve import Server, serving


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="default")
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--requests", type=int, default=500, help="per number of clients")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--images", nargs="*", type=Path, default=demo_photos())
    options = parser.parse_args()
    counts = [int(count) for count in options.clients.split(",")]
    pictures = [path.read_bytes() for path in options.images]
    with serving(find_artifact(options.model), "--queue", options.queue) as server:
        for number in range(options.rounds):
            print(f"\nround {number + 1} of {options.rounds}")
            print_load(sender(server, pictures), clients=counts, requests=options.requests)
            print(f"memory of the server {server.metric('process_resident_memory_bytes') / 1e6:.1f} MB", flush=True)
        sent = options.rounds * len(counts) * options.requests
        answered = int(server.metric('fcos_requests_total{code="200"}'))
        refused = int(server.metric('fcos_requests_total{code="503"}'))
        print(f"\n{sent:,} pictures sent, {answered:,} answered, {refused:,} times 503")
        assert answered == sent


def sender(server: Server, pictures: list[bytes]) -> Callable[[], Callable[[], None]]:
    """Each client sends the pictures in turn."""

    def connect() -> Callable[[], None]:
        position = iter(range(10**9))

        def send() -> None:
            picture = pictures[next(position) % len(pictures)]
            while (answer := server.post(picture, "image/jpeg")).code == 503:
                time.sleep(0.05)
            assert answer.code == 200, answer

        return send

    return connect


if __name__ == "__main__":
    main()
