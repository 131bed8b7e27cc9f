// Event channels, told by raw commands: what works, and what is refused how.
#include <sys/epoll.h>
#include "channel.h"
#include <pthread.h>
#include <signal.h>

static void opens_and_looks_like_the_device(void)
{
	struct stat st;
	int fd = cm_open(DEVICE, O_RDWR | O_CLOEXEC);
	EXPECT(fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC);
	EXPECT(!cm_fstat(fd, &st) && S_ISCHR(st.st_mode) && st.st_rdev != 0);
	int nonblocking = cm_openat(DEVICE, O_RDWR | O_NONBLOCK);
	EXPECT(nonblocking >= 0 && fcntl(nonblocking, F_GETFD) == 0);
	EXPECT(fcntl(nonblocking, F_GETFL) & O_NONBLOCK);

	// Other files and paths are what they were.
	int other = cm_open("/dev/null", O_RDWR);
	EXPECT(other >= 0 && cm_write(other, "x", 1) == 1);
	EXPECT(!cm_fstat(other, &st) && st.st_rdev != 0 && !cm_close(other));
	EXPECT(cm_open("/dev/infiniband/rdma_cm_", O_RDWR) == -1 && errno == ENOENT);
	EXPECT(cm_write(-1, "x", 1) == -1 && errno == EBADF);

	EXPECT(!cm_close(fd) && !cm_close(nonblocking));
	EXPECT(cm_close(fd) == -1 && errno == EBADF);
	EXPECT(fcntl(nonblocking, F_GETFD) == -1);
}

static void a_closed_channel_has_left_every_epoll_set(void)
{
	int set = epoll_create1(0);
	for (int i = 0; i < 3; i++) {
		struct epoll_event asked = { .events = EPOLLIN, .data.u32 = i }, told;
		uint32_t id;
		int fd = cm_open(DEVICE, O_RDWR);
		EXPECT(fd >= 0 && !epoll_ctl(set, EPOLL_CTL_ADD, fd, &asked));
		EXPECT(!create(fd, 1, &id) && !raise_told(fd, id, 1));
		EXPECT(epoll_wait(set, &told, 1, 5000) == 1 && told.data.u32 == (uint32_t)i);
		EXPECT(!cm_close(fd) && fcntl(fd, F_GETFD) == -1);
		EXPECT(!epoll_wait(set, &told, 1, 0));
	}
	close(set);
}

static void counts_follow_events(int fd)
{
	struct rdma_ucm_event_resp event;
	uint32_t id, other, reported;
	EXPECT(!fcntl(fd, F_SETFL, O_NONBLOCK));
	EXPECT(get_event(fd, &event) == EAGAIN && !readable(fd));
	EXPECT(!create(fd, 0x123456789a, &id) && !create(fd, 2, &other));
	EXPECT(!raise_told(fd, id, 2) && readable(fd));
	EXPECT(!raise_signalled(fd, id, 1));
	for (int i = 0; i < 3; i++) {
		EXPECT(!get_event(fd, &event));
		EXPECT(event.uid == 0x123456789a && event.id == id);
	}
	EXPECT(get_event(fd, &event) == EAGAIN && !readable(fd));

	// What ends with its id leaves nothing to read, but the others' events.
	EXPECT(!raise_told(fd, id, 5) && !raise_signalled(fd, id, 4));
	EXPECT(!raise_signalled(fd, other, 1));
	EXPECT(!destroy(fd, id, &reported) && reported == 3);
	EXPECT(readable(fd) && !get_event(fd, &event) && event.id == other);
	EXPECT(!readable(fd) && get_event(fd, &event) == EAGAIN);

	// More than the ring holds.
	for (int i = 0; i < 20; i++)
		EXPECT(!raise_told(fd, other, 50));
	for (int i = 0; i < 500; i++)
		EXPECT(!get_event(fd, &event) && event.event == (uint32_t)i % 50);
	EXPECT(!destroy(fd, other, &reported) && reported == 501);
	EXPECT(!readable(fd));
	EXPECT(!fcntl(fd, F_SETFL, 0));
}

static void ids_move_to_the_channel_that_is_written_to(int fd)
{
	struct rdma_ucm_event_resp event;
	uint32_t id, reported = 9;
	int to = cm_open(DEVICE, O_RDWR | O_NONBLOCK);
	EXPECT(to >= 0 && !create(fd, 5, &id) && !raise_told(fd, id, 2));
	struct rdma_ucm_migrate_id migrate = { (uintptr_t)&reported, id, fd };
	*BODY(rdma_ucm_migrate_id) = migrate;
	EXPECT(!send_command(to, RDMA_USER_CM_CMD_MIGRATE_ID, 4, 16) && reported == 0);
	EXPECT(!readable(fd) && readable(to));
	EXPECT(!get_event(to, &event) && !get_event(to, &event) && event.uid == 5);
	EXPECT(bind_to(fd, id, AF_INET, 1) == EINVAL && !bind_to(to, id, AF_INET, 1));

	int null = open("/dev/null", O_RDWR);
	*BODY(rdma_ucm_migrate_id) = migrate;
	BODY(rdma_ucm_migrate_id)->fd = null;
	EXPECT(send_command(to, RDMA_USER_CM_CMD_MIGRATE_ID, 4, 16) == EINVAL);
	BODY(rdma_ucm_migrate_id)->fd = 9999;
	EXPECT(send_command(to, RDMA_USER_CM_CMD_MIGRATE_ID, 4, 16) == ENOENT);
	close(null);

	// The channel takes its ids along.
	EXPECT(!cm_close(to) && bind_to(fd, id, AF_INET, 1) == ENOENT);
}

static void bad_commands_end_with_an_errno(int fd)
{
	uint32_t id, reported;
	EXPECT(!create(fd, 1, &id));
	EXPECT(create(fd, 1, (uint32_t *)NOWHERE) == EFAULT);
	EXPECT(create(fd, 1, NULL) == EFAULT);
	EXPECT(destroy(fd, id, (uint32_t *)~7ul) == EFAULT);
	EXPECT(get_event(fd, (void *)NOWHERE) == EFAULT);
	EXPECT(get_event(fd, (void *)bad_commands_end_with_an_errno) == EFAULT);
	uint32_t *heap = malloc(sizeof *heap);
	EXPECT(!create(fd, 1, heap) && *heap > id);
	EXPECT(!destroy(fd, *heap, &reported));
	EXPECT(destroy(fd, *heap, &reported) == ENOENT);

	EXPECT(bind_to(fd, id, AF_INET, 80) == EADDRINUSE);
	EXPECT(bind_to(fd, id, 27, 81) == EINVAL && bind_to(fd, id, 0, 81) == EINVAL);
	EXPECT(!bind_to(fd, id, AF_INET6, 81));

	struct rdma_ucm_set_option option = { (uintptr_t)"value", id, 0, 0, 5 };
	*BODY(rdma_ucm_set_option) = option;
	EXPECT(!send_command(fd, RDMA_USER_CM_CMD_SET_OPTION, 0, sizeof option));
	BODY(rdma_ucm_set_option)->optval = NOWHERE;
	EXPECT(send_command(fd, RDMA_USER_CM_CMD_SET_OPTION, 0, sizeof option) == EFAULT);
	BODY(rdma_ucm_set_option)->optlen = 1 << 30;
	EXPECT(send_command(fd, RDMA_USER_CM_CMD_SET_OPTION, 0, sizeof option) == EINVAL);

	struct rdma_ucm_query_route_resp route;
	*BODY(rdma_ucm_query) = (struct rdma_ucm_query){ (uintptr_t)&route, id, 0 };
	EXPECT(send_command(fd, RDMA_USER_CM_CMD_QUERY_ROUTE, 100, 16) == ENOSPC);
	EXPECT(!send_command(fd, RDMA_USER_CM_CMD_QUERY_ROUTE, sizeof route, 16));
	struct ibv_device **list = ibv_get_device_list(NULL);
	EXPECT(route.node_guid == ibv_get_device_guid(list[0]));
	EXPECT(route.ibdev_index == (uint32_t)ibv_get_device_index(list[0]));
	EXPECT(route.port_num == 1 && route.num_paths == 0 && route.ib_route[0].sgid[0] == 7);
	ibv_free_device_list(list);

	EXPECT(send_command(fd, 25, 400, 100) == EINVAL);
	EXPECT(send_command(fd, 13, 400, 100) == ENOSYS);
	EXPECT(cm_write(fd, command_, 7) == -1 && errno == EINVAL);
	EXPECT(cm_write(fd, command_, 0) == -1 && errno == EINVAL);
	EXPECT(cm_write(fd, (void *)NOWHERE, 100) == -1 && errno == EFAULT);
	struct rdma_ucm_cmd_hdr lie = { RDMA_USER_CM_CMD_DISCONNECT, 500, 0 };
	EXPECT(cm_write(fd, &lie, sizeof lie) == -1 && errno == EINVAL);
	EXPECT(!destroy(fd, id, &reported));
}

static void on_signal(int number)
{
	(void)number;
}

static void *waits(void *fd)
{
	struct rdma_ucm_event_resp event;
	EXPECT(get_event(*(int *)fd, &event) == EINTR);
	EXPECT(!get_event(*(int *)fd, &event) && event.uid == 3);
	get_event(*(int *)fd, &event);
	return NULL;
}

static void a_waiting_thread_is_woken_interrupted_and_cancelled(int fd)
{
	struct sigaction action = { .sa_handler = on_signal };
	EXPECT(!sigaction(SIGUSR1, &action, NULL));
	pthread_t thread;
	uint32_t id, reported;
	EXPECT(!create(fd, 3, &id) && !pthread_create(&thread, NULL, waits, &fd));
	usleep(50000);
	EXPECT(!pthread_kill(thread, SIGUSR1));
	usleep(50000);
	EXPECT(!raise_told(fd, id, 1));
	usleep(50000);
	void *result;
	EXPECT(!pthread_cancel(thread) && !pthread_join(thread, &result));
	EXPECT(result == PTHREAD_CANCELED);
	EXPECT(!destroy(fd, id, &reported) && reported == 1);
}

static void *commands(void *fd)
{
	uint32_t id, reported;
	for (;;) {
		EXPECT(!create(*(int *)fd, 4, &id));
		EXPECT(!destroy(*(int *)fd, id, &reported));
	}
	return NULL;
}

static void a_thread_is_cancelled_between_commands_never_within_one(int fd)
{
	uint32_t id, reported;
	for (int i = 0; i < 300; i++) {
		pthread_t thread;
		void *result;
		EXPECT(!pthread_create(&thread, NULL, commands, &fd));
		usleep(37 * i % 1500);
		EXPECT(!pthread_cancel(thread) && !pthread_join(thread, &result));
		EXPECT(result == PTHREAD_CANCELED);
		// Nothing is held, and the next answer is the next command's.
		EXPECT(!create(fd, 4, &id) && !destroy(fd, id, &reported) && reported == 0);
	}
}

static void a_number_that_was_closed_elsewhere_is_the_new_owners(void)
{
	uint32_t id;
	int fd = cm_open(DEVICE, O_RDWR);
	EXPECT(fd >= 0 && !close(fd));
	int pipes[2];
	EXPECT(!pipe(pipes) && (pipes[0] == fd || pipes[1] == fd));
	struct stat st;
	EXPECT(!cm_fstat(fd, &st) && S_ISFIFO(st.st_mode));
	EXPECT(cm_write(pipes[1], "x", 1) == 1);
	close(pipes[0]);
	close(pipes[1]);

	// And if a new channel gets the number, it is the new one's. (Channels that were
	// closed are used again first.)
	enum { SPARE = 40 };
	int spare[SPARE];
	for (int i = 0; i < SPARE; i++)
		EXPECT((spare[i] = cm_open(DEVICE, O_RDWR)) >= 0);
	fd = cm_open(DEVICE, O_RDWR);
	EXPECT(fd >= 0 && !close(fd));
	EXPECT(cm_open(DEVICE, O_RDWR) == fd && !create(fd, 1, &id) && !cm_close(fd));
	for (int i = 0; i < SPARE; i++)
		EXPECT(!cm_close(spare[i]));
}

int main(int argc, char **argv)
{
	alarm(50);
	load(argv[1]);
	if (argc > 2) {
		// Here the system has the device, or nobody.
		struct stat st;
		int fd = cm_open(DEVICE, O_RDWR);
		EXPECT(fd == -1 || (!fstat(fd, &st) && S_ISCHR(st.st_mode)));
		return 0;
	}
	opens_and_looks_like_the_device();
	a_closed_channel_has_left_every_epoll_set();
	int fd = cm_open(DEVICE, O_RDWR);
	EXPECT(fd >= 0);
	counts_follow_events(fd);
	ids_move_to_the_channel_that_is_written_to(fd);
	bad_commands_end_with_an_errno(fd);
	a_waiting_thread_is_woken_interrupted_and_cancelled(fd);
	a_thread_is_cancelled_between_commands_never_within_one(fd);
	a_number_that_was_closed_elsewhere_is_the_new_owners();
	EXPECT(!cm_close(fd));
	return 0;
}
