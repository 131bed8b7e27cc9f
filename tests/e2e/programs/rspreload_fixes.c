/* Preloaded before librspreload of rdma-core 44, for what version 63 mended:
 * - accept4 is unknown to it: here it does not exist, and its callers fall back to
 *   accept;
 * - its select names the wrong descriptors: here it is made of poll;
 * - a poll of rsockets that times out leaves a count behind, after which files that
 *   are no rsockets are never looked at: here no poll times out, a timer ends it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#define MOST 4096

int accept4(int fd, struct sockaddr *address, socklen_t *len, int flags)
{
	(void)fd, (void)address, (void)len, (void)flags;
	errno = ENOSYS;
	return -1;
}

static int next_poll(struct pollfd *fds, nfds_t count, int ms)
{
	static int (*next)(struct pollfd *, nfds_t, int);
	if (!next)
		next = (int (*)(struct pollfd *, nfds_t, int))dlsym(RTLD_NEXT, "poll");
	return next(fds, count, ms);
}

int poll(struct pollfd *fds, nfds_t count, int ms)
{
	static __thread int inside, timer = -1;
	static __thread struct pollfd more[MOST];
	/* librdmacm's own, of files only, and what waits for no time. */
	if (inside || ms <= 0 || !count || count >= MOST)
		return next_poll(fds, count, ms);
	if (timer < 0)
		timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	struct itimerspec when = { .it_value = { ms / 1000, ms % 1000 * 1000000L } };
	if (timer < 0 || timerfd_settime(timer, 0, &when, NULL))
		return next_poll(fds, count, ms);
	memcpy(more, fds, count * sizeof *fds);
	more[count] = (struct pollfd){ .fd = timer, .events = POLLIN };
	inside = 1;
	int ready = next_poll(more, count + 1, -1);
	inside = 0;
	if (ready < 0)
		return ready;
	memcpy(fds, more, count * sizeof *fds);
	return ready - (more[count].revents != 0);
}

static int take(int fd, int ready, fd_set *set)
{
	if (!set || !FD_ISSET(fd, set))
		return 0;
	if (!ready)
		FD_CLR(fd, set);
	return ready != 0;
}

int select(int n, fd_set *reads, fd_set *writes, fd_set *others, struct timeval *timeout)
{
	struct pollfd fds[FD_SETSIZE];
	nfds_t count = 0;
	for (int fd = 0; fd < n && fd < FD_SETSIZE; fd++) {
		short events = 0;
		if (reads && FD_ISSET(fd, reads))
			events |= POLLIN;
		if (writes && FD_ISSET(fd, writes))
			events |= POLLOUT;
		if (others && FD_ISSET(fd, others))
			events |= POLLPRI;
		if (events)
			fds[count++] = (struct pollfd){ .fd = fd, .events = events };
	}
	long ms = timeout ? timeout->tv_sec * 1000 + (timeout->tv_usec + 999) / 1000 : -1;
	int ret = poll(fds, count, (int)ms);
	if (ret < 0)
		return ret;
	int ready = 0;
	for (nfds_t i = 0; i < count; i++) {
		short got = fds[i].revents;
		ready += take(fds[i].fd, got & (POLLIN | POLLHUP | POLLERR), reads);
		ready += take(fds[i].fd, got & (POLLOUT | POLLERR), writes);
		ready += take(fds[i].fd, got & POLLPRI, others);
	}
	return ready;
}
