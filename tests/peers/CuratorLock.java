import java.util.Collection;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessLock;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreMutex;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.retry.RetryOneTime;
import org.apache.zookeeper.CreateMode;

/**
 * Locks by Curator's own recipes. Arguments: VERB HOSTS PATH [RECIPE].
 *
 * <p>hold: says "waiting", takes the lock and says "held"; releases at a line of input and says
 * "released". try: says "held" and releases, or says "refused".
 *
 * <p>RECIPE is one of mutex (InterProcessMutex, unless another is named), reader and writer
 * (InterProcessReadWriteLock), semaphore (InterProcessSemaphoreV2 with one lease), semaphore-mutex
 * (InterProcessSemaphoreMutex), selector (LeaderSelector) and latch (LeaderLatch).
 *
 * <p>downgrade: writes as hold does; at a line of input becomes a reader as Curator does from 5.5 on
 * (CURATOR-621), which makes the reader's node with the number of the writer's, and says "reads"; at
 * another line says "released". leader: says who leads by the LeaderSelector.
 */
public class CuratorLock {
    /** What a recipe does. */
    private interface Turn {
        boolean take(long millis) throws Exception;

        void end() throws Exception;
    }

    private static final long LONG = 600_000;

    public static void main(String[] args) throws Exception {
        CuratorFramework client =
                CuratorFrameworkFactory.newClient(args[1], 10_000, 10_000, new RetryOneTime(100));
        client.start();
        String path = args[2];
        if (args[0].equals("leader")) {
            say(new LeaderSelector(client, path, leads(null, null)).getLeader().getId());
        } else if (args[0].equals("downgrade")) {
            downgrade(client, path);
        } else {
            Turn turn = turn(client, path, args.length > 3 ? args[3] : "mutex");
            if (args[0].equals("hold")) {
                say("waiting");
                if (!turn.take(LONG)) throw new IllegalStateException("waited for too long");
                say("held");
                System.in.read();
                turn.end();
                say("released");
            } else if (turn.take(500)) {
                say("held");
                turn.end();
            } else {
                say("refused");
            }
        }
        client.close();
        // The threads of a selector that never led may still wait.
        System.exit(0);
    }

    private static Turn turn(CuratorFramework client, String path, String recipe) throws Exception {
        switch (recipe) {
            case "mutex":
                return lock(new InterProcessMutex(client, path));
            case "reader":
                return lock(new InterProcessReadWriteLock(client, path).readLock());
            case "writer":
                return lock(new InterProcessReadWriteLock(client, path).writeLock());
            case "semaphore-mutex":
                return lock(new InterProcessSemaphoreMutex(client, path));
            case "semaphore":
                return semaphore(new InterProcessSemaphoreV2(client, path, 1));
            case "selector":
                return selector(client, path);
            case "latch":
                return latch(new LeaderLatch(client, path, "a curator"));
            default:
                throw new IllegalArgumentException(recipe);
        }
    }

    private static Turn lock(InterProcessLock lock) {
        return new Turn() {
            public boolean take(long millis) throws Exception {
                return lock.acquire(millis, TimeUnit.MILLISECONDS);
            }

            public void end() throws Exception {
                lock.release();
            }
        };
    }

    private static Turn semaphore(InterProcessSemaphoreV2 semaphore) {
        return new Turn() {
            private Lease lease;

            public boolean take(long millis) throws Exception {
                lease = semaphore.acquire(millis, TimeUnit.MILLISECONDS);
                return lease != null;
            }

            public void end() {
                semaphore.returnLease(lease);
            }
        };
    }

    private static Turn latch(LeaderLatch latch) throws Exception {
        return new Turn() {
            public boolean take(long millis) throws Exception {
                latch.start();
                return latch.await(millis, TimeUnit.MILLISECONDS);
            }

            public void end() throws Exception {
                latch.close();
            }
        };
    }

    private static Turn selector(CuratorFramework client, String path) {
        CountDownLatch leads = new CountDownLatch(1);
        CountDownLatch resigns = new CountDownLatch(1);
        LeaderSelector selector = new LeaderSelector(client, path, leads(leads, resigns));
        selector.setId("a curator");
        return new Turn() {
            public boolean take(long millis) throws Exception {
                selector.start();
                return leads.await(millis, TimeUnit.MILLISECONDS);
            }

            public void end() {
                resigns.countDown();
                selector.close();
            }
        };
    }

    private static LeaderSelectorListenerAdapter leads(CountDownLatch leads, CountDownLatch resigns) {
        return new LeaderSelectorListenerAdapter() {
            public void takeLeadership(CuratorFramework client) throws Exception {
                leads.countDown();
                resigns.await();
            }
        };
    }

    private static void downgrade(CuratorFramework client, String path) throws Exception {
        InterProcessMutex writer = new InterProcessReadWriteLock(client, path).writeLock();
        say("waiting");
        writer.acquire();
        say("held");
        System.in.read();
        Collection<String> nodes = writer.getParticipantNodes();
        String node = nodes.iterator().next();
        String number = node.substring(node.length() - 10);
        String reader =
                client.create()
                        .withProtection()
                        .withMode(CreateMode.EPHEMERAL)
                        .forPath(path + "/__READ__" + number);
        writer.release();
        say("reads");
        System.in.read();
        client.delete().forPath(reader);
        say("released");
    }

    private static void say(String word) {
        System.out.println(word);
        System.out.flush();
    }
}
