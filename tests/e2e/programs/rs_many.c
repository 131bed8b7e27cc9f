/* Holds COUNT connected rsockets until it is killed, each of which has carried
 * a number in both directions: rs_many server|client COUNT ADDRESS
 *
 * The client is one process. The servers are many, of four rsockets each: in
 * rdma-core 44 a process hangs that has accepted six (the service thread keeps an
 * array that was reallocated; mended in 53). */
#include <arpa/inet.h>
#include <rdma/rsocket.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#define PORT 7471
#define EACH 4

#define MUST(x)                          \
	do {                             \
		if (!(x)) {              \
			perror(#x);      \
			exit(1);         \
		}                        \
	} while (0)

static void receive(int fd, uint32_t *number)
{
	size_t have = 0;
	while (have < sizeof *number) {
		ssize_t n = rrecv(fd, (char *)number + have, sizeof *number - have, 0);
		MUST(n > 0);
		have += (size_t)n;
	}
}

static void hold(void)
{
	for (;;)
		pause();
}

static void serve(struct sockaddr_in at, int number, int count, int done)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	at.sin_port = htons((uint16_t)(PORT + number));
	int listener = rsocket(AF_INET, SOCK_STREAM, 0);
	MUST(listener >= 0);
	MUST(!rbind(listener, (struct sockaddr *)&at, sizeof at));
	MUST(!rlisten(listener, EACH));
	for (int i = 0; i < count; i++) {
		uint32_t word;
		int fd = raccept(listener, NULL, NULL);
		MUST(fd >= 0);
		receive(fd, &word);
		MUST(rsend(fd, &word, sizeof word, 0) == sizeof word);
	}
	MUST(write(done, "", 1) == 1);
	hold();
}

static void connect_all(struct sockaddr_in at, int count)
{
	for (int i = 0; i < count; i++) {
		uint32_t word = (uint32_t)i;
		int fd = rsocket(AF_INET, SOCK_STREAM, 0);
		MUST(fd >= 0);
		at.sin_port = htons((uint16_t)(PORT + i / EACH));
		MUST(!rconnect(fd, (struct sockaddr *)&at, sizeof at));
		MUST(rsend(fd, &word, sizeof word, 0) == sizeof word);
		receive(fd, &word);
		MUST(word == (uint32_t)i);
	}
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	int count = atoi(argv[2]), done[2];
	struct sockaddr_in at = { .sin_family = AF_INET };
	MUST(inet_pton(AF_INET, argv[3], &at.sin_addr) == 1);
	if (!strcmp(argv[1], "client")) {
		connect_all(at, count);
	} else {
		MUST(!pipe(done));
		int servers = (count + EACH - 1) / EACH;
		for (int i = 0; i < servers; i++) {
			int few = count - i * EACH < EACH ? count - i * EACH : EACH;
			pid_t child = fork();
			MUST(child >= 0);
			if (!child)
				serve(at, i, few, done[1]);
		}
		char byte;
		for (int i = 0; i < servers; i++)
			MUST(read(done[0], &byte, 1) == 1);
	}
	printf("held %d\n", count);
	fflush(stdout);
	hold();
}
