"""How fast do small images come over HTTP, checked and kept, and how much memory does it take?

    python benchmarks/images.py                             # 20,000 images, 5 rounds of 2,000, about 10 minutes
    python benchmarks/images.py --rounds 1 --images 500 --full 2000

A loopback server in its own process answers after 30 ms. The floor is what the connections allow: connections / latency.
Ours checks every image and writes it into archives; the other ways only hold the bytes. All in turn, one process each.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

HIPS = "CDS/P/SDSS9/color"


def urls(base: str, images: int) -> list[str]:
    from skyset.archives.hips import hips2fits_url

    return [hips2fits_url(base, HIPS, number % 36000 / 100, number % 600 / 10, 0.01) for number in range(images)]


# --- the ways -----------------------------------------------------------------------------------------------


def skyset_pool(base: str, images: int, connections: int) -> int:
    from skyset.archives.image_pool import ImagePool, ImageRequest
    from skyset.building.tars.sink import TarSink
    from skyset.pixels import check_image

    pool = ImagePool(connections, check=lambda data: check_image(data, "jpg", 64, 64))
    requests = (ImageRequest(str(number), (url,)) for number, url in enumerate(urls(base, images)))
    with tempfile.TemporaryDirectory() as folder, TarSink(folder) as sink:
        for answer in pool.run(requests):
            sink.add(answer.key, {"jpg": answer.data}, answer.status, answer.tries)
        return len(sink.done)


def raw_threads(base: str, images: int, connections: int) -> int:
    """No library, no checks: as many threads, each with a connection of the standard library."""
    todo, lock, counts = iter(urls(base, images)), threading.Lock(), []

    def work() -> None:
        connection, count = http.client.HTTPConnection(urlsplit(base).netloc), 0
        while True:
            with lock:
                url = next(todo, None)
            if url is None:
                break
            connection.request("GET", url.removeprefix("http://" + urlsplit(base).netloc))
            count += len(connection.getresponse().read()) > 0
        connection.close()
        counts.append(count)

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def shared_session(base: str, images: int, connections: int) -> int:
    """The usual notebook: one session of requests, as it comes, and an executor's map."""
    from concurrent.futures import ThreadPoolExecutor

    import requests

    session = requests.Session()
    with ThreadPoolExecutor(connections) as pool:
        contents = list(pool.map(lambda url: session.get(url, timeout=60).content, urls(base, images)))
    session.close()
    return sum(len(content) > 0 for content in contents)


def aiohttp_tasks(base: str, images: int, connections: int) -> int:
    import asyncio

    import aiohttp

    async def everything() -> int:
        limit = asyncio.Semaphore(connections)

        async def one(session: aiohttp.ClientSession, url: str) -> bool:
            async with limit, session.get(url) as response:
                return len(await response.read()) > 0

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:
            return sum(await asyncio.gather(*(one(session, url) for url in urls(base, images))))

    return asyncio.run(everything())


WAYS: dict[str, tuple[str, Callable[[str, int, int], int]]] = {
    "skyset": ("**skyset**: ImagePool, every image checked, TarSink", skyset_pool),
    "raw": ("floor: http.client in threads, nothing checked or kept", raw_threads),
    "requests": ("peer: ThreadPoolExecutor, one requests.Session, nothing checked or kept", shared_session),
    "aiohttp": ("peer: aiohttp, nothing checked or kept", aiohttp_tasks),
}


# --- measuring ----------------------------------------------------------------------------------------------


def work(name: str, base: str, images: int, connections: int) -> None:
    """In a process of its own: print seconds without start-up, and the largest resident memory in bytes."""
    import resource

    function = WAYS[name][1]
    function(base, connections, connections)  # imports
    start = time.perf_counter()
    got = function(base, images, connections)
    seconds = time.perf_counter() - start
    if got != images:
        raise SystemExit(f"{name}: {got} of {images} images")
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))


def measured(name: str, base: str, images: int, connections: int) -> tuple[float, int]:
    command = [sys.executable, __file__, "--work", name, base, str(images), str(connections)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, memory = json.loads(output)
    print(f"  {connections} connections, {images} images, {name}: {seconds:.2f} s", file=sys.stderr)
    return seconds, memory


@contextmanager
def server(latency: float):
    command = [sys.executable, "-m", "skyset.testing.hips", "--light", "--latency", str(latency)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def table(base: str, connections: int, arguments: argparse.Namespace) -> None:
    limit = connections / arguments.latency
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    peaks = dict.fromkeys(WAYS, 0)
    for _ in range(arguments.rounds):
        for name in WAYS:
            taken, memory = measured(name, base, arguments.images, connections)
            seconds[name].append(taken)
            peaks[name] = max(peaks[name], memory)
    print(f"\n### {connections} connections: {limit:.0f} images/s at most\n")
    print("| way | images/s | to the limit | to http.client | peak MB |\n|---|---|---|---|---|")
    for name, (title, _) in WAYS.items():
        rate = arguments.images / statistics.median(seconds[name])
        ratio = statistics.median(b / a for a, b in zip(seconds[name], seconds["raw"], strict=True))
        shares = sorted(arguments.images / taken / limit for taken in seconds[name])
        print(
            f"| {title} | {rate:.0f} | {statistics.median(shares):.2f} ({shares[0]:.2f} to {shares[-1]:.2f}) "
            f"| {ratio:.2f} | {peaks[name] / 1e6:.0f} |"
        )
    if arguments.full:
        taken, memory = measured("skyset", base, arguments.full, connections)
        rate = arguments.full / taken
        print(f"| **skyset**, {arguments.full:,} images | {rate:.0f} | {rate / limit:.2f} | | {memory / 1e6:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="of each way and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full", type=int, default=20_000, help="images of one long run of ours; 0: none")
    parser.add_argument("--latency", type=float, default=0.03, help="seconds")
    parser.add_argument("--connections", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        name, base, images, connections = arguments.work
        work(name, base, int(images), int(connections))
        return
    from benchmarks.measure import machine

    print(
        f"{machine()}; {os.cpu_count()} cores shared with the server, {1000 * arguments.latency:g} ms, "
        f"{arguments.rounds} rounds of {arguments.images:,} images"
    )
    with server(arguments.latency) as base:
        for connections in arguments.connections:
            table(base, connections, arguments)


if __name__ == "__main__":
    main()
