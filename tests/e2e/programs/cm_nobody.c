/* Connects COUNT times to a port where nobody listens, with an id each, and
 * holds the last HELD of them: cm_nobody COUNT HELD [ADDRESS] */
#include "cm.h"

#define PORT_OF_NOBODY 4242

int main(int argc, char **argv)
{
	MUST(argc > 2, "usage: cm_nobody COUNT HELD [ADDRESS]");
	long count = atol(argv[1]), held = atol(argv[2]);
	if (argc > 3)
		server_address = argv[3];
	struct rdma_event_channel *channel = new_channel();
	struct rdma_conn_param param = conn_param();
	/* No queue pair is made: its number is only told to the peer. */
	param.qp_num = 1;
	double since = now();
	for (long i = 0; i < count; i++) {
		struct rdma_cm_id *id = resolve(channel, server_address, PORT_OF_NOBODY);
		MUST(!rdma_connect(id, &param), "rdma_connect");
		EXPECT(expect_event(channel, RDMA_CM_EVENT_REJECTED) == 8);
		if (i < count - held)
			destroy(id);
	}
	printf("refused %ld in %.1f s\n", count, now() - since);
	fflush(stdout);
	if (held)
		for (;;)
			pause();
	rdma_destroy_event_channel(channel);
	return 0;
}
