import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.retry.RetryOneTime;

/**
 * Locks by Curator's own recipe. Arguments: VERB HOSTS PATH.
 *
 * <p>hold: says "waiting", takes the lock and says "held"; releases at a line of input and says
 * "released". try: says "held" and releases, or says "refused".
 */
public class CuratorLock {
    public static void main(String[] args) throws Exception {
        CuratorFramework client =
                CuratorFrameworkFactory.newClient(args[1], 10_000, 10_000, new RetryOneTime(100));
        client.start();
        InterProcessMutex mutex = new InterProcessMutex(client, args[2]);
        if (args[0].equals("hold")) {
            say("waiting");
            mutex.acquire();
            say("held");
            System.in.read();
            mutex.release();
            say("released");
        } else if (mutex.acquire(500, TimeUnit.MILLISECONDS)) {
            say("held");
            mutex.release();
        } else {
            say("refused");
        }
        client.close();
    }

    private static void say(String word) {
        System.out.println(word);
        System.out.flush();
    }
}
