"""A peer that locks by redis-py's own `Lock`. Driven by crates/leasehold/tests/peers.rs.

    redis_py.py hold URL KEY TTL      says `waiting`, `held`; at a line on stdin releases, and
                                      says `released` or `not ours`
    redis_py.py try URL KEY TTL       says `held` (and releases) or `refused`
    redis_py.py contend URL KEY TTL TIMES FILE
                                      adds TIMES to the number in FILE, one under each lock;
                                      says `done`

TTL is in milliseconds, or `none`: redis-py's default. A URL of a cluster is redis+cluster://….
"""

import os
import sys
import time

import redis
from redis.exceptions import LockError


def say(word):
    print(word, flush=True)


def hold(lock):
    say("waiting")
    lock.acquire()
    say("held")
    sys.stdin.readline()
    try:
        lock.release()
        say("released")
    except LockError:
        say("not ours")


def attempt(lock):
    if lock.acquire(blocking=False):
        lock.release()
        say("held")
    else:
        say("refused")


def contend(lock, times, path):
    who = f"redis-py {os.getpid()}"
    for _ in range(times):
        with lock:
            add_one(path, who)
    say("done")


def add_one(path, who):
    """Not atomic on purpose: two at once lose an addition, and leave their marks interleaved."""
    with open(path + ".log", "a", encoding="utf-8") as log:
        log.write(f"begin {who}\n")
        log.flush()
        with open(path, encoding="utf-8") as file:
            number = int(file.read())
        time.sleep(0.001)
        with open(path, "w", encoding="utf-8") as file:
            file.write(str(number + 1))
        log.write(f"end {who}\n")


def connect(url):
    if url.startswith("redis+cluster://"):
        # It takes one node, and asks that one for the others.
        return redis.RedisCluster.from_url(url.replace("+cluster", "").split(",")[0])
    return redis.Redis.from_url(url)


def main():
    verb, url, key, ttl, *rest = sys.argv[1:]
    timeout = None if ttl == "none" else int(ttl) / 1000
    lock = connect(url).lock(key, timeout=timeout, sleep=0.01)
    if verb == "hold":
        hold(lock)
    elif verb == "try":
        attempt(lock)
    elif verb == "contend":
        contend(lock, int(rest[0]), rest[1])
    else:
        sys.exit(f"unknown verb {verb}")


main()
