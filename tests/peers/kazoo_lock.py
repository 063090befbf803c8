"""Locks by kazoo's own recipe. Arguments: VERB HOSTS PATH.

lead  the same by an election: "waiting", "held" when it leads, "released"
hold  says "waiting", takes the lock and says "held"; releases at a line of input and says
      "released"
try   says "held" and releases, or says "refused"
"""

import sys

from kazoo.client import KazooClient


def say(word):
    print(word, flush=True)


verb, hosts, path = sys.argv[1:4]
client = KazooClient(hosts=hosts, timeout=10)
client.start(timeout=30)
lock = client.Lock(path, "a kazoo")
if verb == "lead":

    def leads():
        say("held")
        sys.stdin.readline()

    say("waiting")
    client.Election(path, "a kazoo").run(leads)
    say("released")
elif verb == "hold":
    say("waiting")
    lock.acquire()
    say("held")
    sys.stdin.readline()
    lock.release()
    say("released")
elif lock.acquire(blocking=False):
    say("held")
    lock.release()
else:
    say("refused")
client.stop()
