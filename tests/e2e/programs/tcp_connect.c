/* The like of cm_connect and of cmtime's steps over TCP: one at a time, then
 * all begun before the first is waited for.
 * tcp_connect server ADDRESS | tcp_connect client COUNT ADDRESS */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define MUST(x)                          \
	do {                             \
		if (!(x)) {              \
			perror(#x);      \
			exit(1);         \
		}                        \
	} while (0)

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Accepts; closes what its client has closed. */
static void serve(struct sockaddr_in *at)
{
	int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0), set = epoll_create1(0);
	MUST(!setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
	MUST(!bind(listener, (struct sockaddr *)at, sizeof *at) && !listen(listener, 4096));
	struct epoll_event ask = { .events = EPOLLIN, .data.fd = listener }, ready[64];
	MUST(!epoll_ctl(set, EPOLL_CTL_ADD, listener, &ask));
	for (;;) {
		int n = epoll_wait(set, ready, 64, -1);
		for (int i = 0; i < n; i++) {
			if (ready[i].data.fd != listener) {
				close(ready[i].data.fd);
				continue;
			}
			int fd = accept(listener, NULL, NULL);
			MUST(fd >= 0);
			ask.data.fd = fd;
			MUST(!epoll_ctl(set, EPOLL_CTL_ADD, fd, &ask));
		}
	}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Ports in TIME_WAIT must not run out: the close is a reset. */
static void end(int fd)
{
	struct linger now_ = { .l_onoff = 1, .l_linger = 0 };
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now_, sizeof now_);
	close(fd);
}

static void one_at_a_time(struct sockaddr_in *to, int count)
{
	double *took = calloc((size_t)count, sizeof *took), sum = 0;
	for (int i = 0; i < count; i++) {
		double since = now();
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		MUST(!connect(fd, (struct sockaddr *)to, sizeof *to));
		took[i] = now() - since;
		sum += took[i];
		end(fd);
	}
	qsort(took, (size_t)count, sizeof *took, by_value);
	printf("connect_p50_us %.2f\n", took[count / 2] * 1e6);
	printf("connect_p99_us %.2f\n", took[count / 100 * 99] * 1e6);
	printf("connects_per_second %.0f\n", count / sum);
}

static void all_at_once(struct sockaddr_in *to, int count)
{
	int *fds = calloc((size_t)count, sizeof *fds), set = epoll_create1(0), left = count;
	double since = now();
	for (int i = 0; i < count; i++)
		MUST((fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) >= 0);
	double created = now();
	for (int i = 0; i < count; i++) {
		int r = connect(fds[i], (struct sockaddr *)to, sizeof *to);
		MUST(!r || errno == EINPROGRESS);
		struct epoll_event ask = { .events = EPOLLOUT | EPOLLONESHOT };
		MUST(!epoll_ctl(set, EPOLL_CTL_ADD, fds[i], &ask));
	}
	while (left) {
		struct epoll_event ready[64];
		int n = epoll_wait(set, ready, 64, 10000);
		MUST(n > 0);
		for (int i = 0; i < n; i++)
			MUST(!(ready[i].events & EPOLLERR));
		left -= n;
	}
	double done = now();
	printf("batch_connect_us %.2f\n", (done - created) / count * 1e6);
	printf("batch_all_us %.2f\n", (done - since) / count * 1e6);
	for (int i = 0; i < count; i++)
		end(fds[i]);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(7471) };
	MUST(inet_pton(AF_INET, argv[argc - 1], &at.sin_addr) == 1);
	if (!strcmp(argv[1], "server"))
		serve(&at);
	int count = atoi(argv[2]);
	one_at_a_time(&at, count);
	all_at_once(&at, count < 1000 ? count : 1000);
	return 0;
}
