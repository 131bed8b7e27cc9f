/* Holds COUNT connected rsockets until it is killed, each of which has carried
 * a number in both directions: rs_many server|client COUNT ADDRESS */
#include <arpa/inet.h>
#include <rdma/rsocket.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	int count = atoi(argv[2]), server = !strcmp(argv[1], "server");
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(7471) };
	MUST(inet_pton(AF_INET, argv[3], &at.sin_addr) == 1);
	int listener = -1;
	if (server) {
		MUST((listener = rsocket(AF_INET, SOCK_STREAM, 0)) >= 0);
		MUST(!rbind(listener, (struct sockaddr *)&at, sizeof at));
		MUST(!rlisten(listener, 128));
	}
	for (uint32_t i = 0; i < (uint32_t)count; i++) {
		int fd;
		uint32_t number = i;
		if (server) {
			MUST((fd = raccept(listener, NULL, NULL)) >= 0);
			receive(fd, &number);
			MUST(rsend(fd, &number, sizeof number, 0) == sizeof number);
		} else {
			MUST((fd = rsocket(AF_INET, SOCK_STREAM, 0)) >= 0);
			MUST(!rconnect(fd, (struct sockaddr *)&at, sizeof at));
			MUST(rsend(fd, &number, sizeof number, 0) == sizeof number);
			receive(fd, &number);
			MUST(number == i);
		}
	}
	printf("held %d\n", count);
	fflush(stdout);
	for (;;)
		pause();
}
