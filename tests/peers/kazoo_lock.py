"""Locks by kazoo's own recipes. Arguments: VERB HOSTS PATH [RECIPE].

hold  says "waiting", takes the lock and says "held"; releases at a line of input and says
      "released"
try   says "held" and releases, or says "refused"

RECIPE is one of lock (Lock, unless another is named), reader (ReadLock), writer (WriteLock),
semaphore-N (Semaphore with N leases) and election (Election, which cannot try).

write NODE VALUE: puts VALUE at PATH in a transaction that checks NODE; says "written", or why not
read    says what is at PATH
leader  says who leads by the Election
"""

import sys

from kazoo.client import KazooClient


def say(word):
    print(word, flush=True)


verb, hosts, path = sys.argv[1:4]
client = KazooClient(hosts=hosts, timeout=10)
client.start(timeout=30)
recipe = sys.argv[4] if verb in ("hold", "try") and len(sys.argv) > 4 else "lock"
if recipe.startswith("semaphore-"):
    lock = client.Semaphore(path, "a kazoo", max_leases=int(recipe.split("-")[1]))
else:
    kinds = {"reader": client.ReadLock, "writer": client.WriteLock}
    lock = kinds.get(recipe, client.Lock)(path, "a kazoo")
if recipe == "election":

    def leads():
        say("held")
        sys.stdin.readline()

    say("waiting")
    client.Election(path, "a kazoo").run(leads)
    say("released")
elif verb == "leader":
    say(client.Election(path).contenders()[0])
elif verb == "write":
    node, value = sys.argv[4:6]
    client.ensure_path(path)
    transaction = client.transaction()
    transaction.check(node, -1)
    transaction.set_data(path, value.encode())
    results = transaction.commit()
    failed = [type(it).__name__ for it in results if isinstance(it, Exception)]
    say(" ".join(failed) or "written")
elif verb == "read":
    say(client.get(path)[0].decode())
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
