/* How long one connection by rdma_cm takes, from resolving the address to
 * ESTABLISHED, with one completion queue for all: cm_connect server [ADDRESS] | cm_connect client COUNT [ADDRESS] */
#include "cm.h"

#define SERVICE 7471

/* Accepts until it is killed. */
static void serve(struct rdma_event_channel *channel)
{
	new_listener(channel, server_address, SERVICE, 1024);
	for (;;) {
		struct rdma_cm_event *event;
		MUST(!rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
		struct rdma_cm_id *id = event->id;
		enum rdma_cm_event_type kind = event->event;
		rdma_ack_cm_event(event);
		if (kind == RDMA_CM_EVENT_CONNECT_REQUEST) {
			share_cq(id);
			accept_it(id);
		} else if (kind == RDMA_CM_EVENT_DISCONNECTED)
			destroy(id);
	}
}

static void blocking(struct rdma_event_channel *channel, enum rdma_cm_event_type kind)
{
	struct rdma_cm_event *event;
	MUST(!rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
	EXPECT(event->event == kind && event->status == 0);
	rdma_ack_cm_event(event);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	MUST(argc > 1, "usage: cm_connect server [ADDRESS] | client COUNT [ADDRESS]");
	struct rdma_event_channel *channel = new_channel();
	int server = !strcmp(argv[1], "server");
	if (argc > 3 - server)
		server_address = argv[3 - server];
	if (server)
		serve(channel);
	int count = argc > 2 ? atoi(argv[2]) : 1000;
	double *took = calloc((size_t)count, sizeof *took), sum = 0;
	struct sockaddr_storage to = address_of(server_address, SERVICE);
	struct rdma_conn_param param = conn_param();
	for (int i = 0; i < count; i++) {
		struct rdma_cm_id *id = new_id(channel);
		double since = now();
		MUST(!rdma_resolve_addr(id, NULL, (struct sockaddr *)&to, 2000), "resolve_addr");
		blocking(channel, RDMA_CM_EVENT_ADDR_RESOLVED);
		MUST(!rdma_resolve_route(id, 2000), "resolve_route");
		blocking(channel, RDMA_CM_EVENT_ROUTE_RESOLVED);
		share_cq(id);
		create_qp(id);
		MUST(!rdma_connect(id, &param), "connect");
		blocking(channel, RDMA_CM_EVENT_ESTABLISHED);
		took[i] = now() - since;
		sum += took[i];
		destroy(id);
	}
	qsort(took, (size_t)count, sizeof *took, by_value);
	printf("connect_p50_us %.2f\n", took[count / 2] * 1e6);
	printf("connect_p99_us %.2f\n", took[count / 100 * 99] * 1e6);
	printf("connects_per_second %.0f\n", count / sum);
	return 0;
}
