"""Requests from several clients at once, and how long they took."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import perf_counter

import numpy as np


def measure(connect: Callable[[], Callable[[], None]], *, clients: int, requests: int) -> np.ndarray:
    """Send `requests` in all from `clients` threads. Returns the seconds of each request.

    connect: called in each thread; returns a function that sends a request and waits for its answer. Its first error is
    raised.
    """
    tickets: SimpleQueue[int] = SimpleQueue()
    for number in range(requests):
        tickets.put(number)
    times, errors = list[float](), list[BaseException]()

    def work() -> None:
        try:
            send = connect()
            while not errors:
                tickets.get_nowait()
                started = perf_counter()
                send()
                times.append(perf_counter() - started)
        except Empty:
            pass
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return np.array(times)


def print_load(connect: Callable[[], Callable[[], None]], *, clients: list[int], requests: int) -> None:
    """Print a row for each number of clients: requests per second, and the median and the 99th percentile in ms."""
    print(f"{'clients':>8} {'requests':>9} {'per s':>7} {'p50 ms':>8} {'p99 ms':>8}")
    for count in clients:
        started = perf_counter()
        times = measure(connect, clients=count, requests=requests)
        rate = len(times) / (perf_counter() - started)
        p50, p99 = np.percentile(times, [50, 99]) * 1000
        print(f"{count:8} {len(times):9} {rate:7.1f} {p50:8.1f} {p99:8.1f}", flush=True)
