// A forked child's channels are dead, and it opens its own; so are all when the backend
// hangs up, and nobody is left waiting.
#include "channel.h"
#include <pthread.h>
#include <stdatomic.h>

static atomic_int stop;

// Other threads are in the middle of things when the process forks.
static void *busy(void *unused)
{
	(void)unused;
	while (!stop) {
		int fd = cm_open(DEVICE, O_RDWR);
		EXPECT(fd >= 0 && !cm_close(fd));
	}
	return NULL;
}

static void child_of(int fd, uint32_t id)
{
	struct rdma_ucm_event_resp event;
	uint32_t own;
	alarm(20);
	EXPECT(bind_to(fd, id, AF_INET, 1) == ENODEV);
	EXPECT(get_event(fd, &event) == ENODEV);
	int fresh = cm_open(DEVICE, O_RDWR);
	EXPECT(fresh >= 0 && !create(fresh, 1, &own) && !raise_told(fresh, own, 1));
	EXPECT(!get_event(fresh, &event));
	EXPECT(!cm_close(fd) && !cm_close(fresh));
	_exit(0);
}

static void *waits(void *fd)
{
	struct rdma_ucm_event_resp event;
	EXPECT(get_event(*(int *)fd, &event) == ENODEV);
	return NULL;
}

int main(int argc, char **argv)
{
	EXPECT(argc == 2);
	alarm(50);
	load(argv[1]);
	struct rdma_ucm_event_resp event;
	int fd = cm_open(DEVICE, O_RDWR);
	uint32_t id, reported;
	pthread_t thread;
	EXPECT(fd >= 0 && !create(fd, 1, &id) && !raise_told(fd, id, 1));
	EXPECT(!pthread_create(&thread, NULL, busy, NULL));
	for (int i = 0; i < 10; i++) {
		int status;
		pid_t child = fork();
		EXPECT(child >= 0);
		if (child == 0)
			child_of(fd, id);
		EXPECT(waitpid(child, &status, 0) == child);
		EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	stop = 1;
	EXPECT(!pthread_join(thread, NULL));
	// The parent has lost nothing.
	EXPECT(readable(fd) && !get_event(fd, &event) && !readable(fd));

	EXPECT(!pthread_create(&thread, NULL, waits, &fd));
	usleep(50000);
	puts("ready");
	fflush(stdout);
	EXPECT(!pthread_join(thread, NULL));
	EXPECT(readable(fd) && get_event(fd, &event) == ENODEV);
	EXPECT(create(fd, 2, &id) == ENODEV && destroy(fd, id, &reported) == ENODEV);
	EXPECT(!cm_close(fd));
	// The device still listens: what is opened now is of a new session.
	fd = cm_open(DEVICE, O_RDWR);
	EXPECT(fd >= 0 && !create(fd, 2, &id) && !cm_close(fd));
	return 0;
}
