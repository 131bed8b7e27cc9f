/* Holds COUNT connections on one event channel, one PD and one CQ with its
 * completion channel, until it is killed: cm_many server|client COUNT */
#include "cm.h"

#define SERVICE 7471

static struct ibv_pd *pd;
static struct ibv_cq *cq;

static void create_shared_qp(struct rdma_cm_id *id, int count)
{
	if (!pd) {
		MUST(pd = ibv_alloc_pd(id->verbs), "alloc_pd");
		struct ibv_comp_channel *channel = ibv_create_comp_channel(id->verbs);
		MUST(channel, "create_comp_channel");
		MUST(cq = ibv_create_cq(id->verbs, 2 * count, NULL, channel, 0), "create_cq");
		must_be_0(ibv_req_notify_cq(cq, 0), "req_notify_cq");
	}
	struct ibv_qp_init_attr init = {
		.send_cq = cq,
		.recv_cq = cq,
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1 },
	};
	MUST(!rdma_create_qp(id, pd, &init), "rdma_create_qp");
}

static void serve(struct rdma_event_channel *channel, int count)
{
	new_listener(channel, server_address, SERVICE, 1024);
	struct rdma_conn_param param = conn_param();
	for (int established = 0; established < count;) {
		struct rdma_cm_event *event;
		MUST(!rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
		struct rdma_cm_id *id = event->id;
		enum rdma_cm_event_type kind = event->event;
		rdma_ack_cm_event(event);
		if (kind == RDMA_CM_EVENT_CONNECT_REQUEST) {
			create_shared_qp(id, count);
			MUST(!rdma_accept(id, &param), "rdma_accept");
		} else {
			EXPECT(kind == RDMA_CM_EVENT_ESTABLISHED);
			established++;
		}
	}
}

static void ask(struct rdma_event_channel *channel, int count)
{
	struct rdma_conn_param param = conn_param();
	for (int i = 0; i < count; i++) {
		struct rdma_cm_id *id = resolve(channel, server_address, SERVICE);
		create_shared_qp(id, count);
		MUST(!rdma_connect(id, &param), "rdma_connect");
		EXPECT(expect_event(channel, RDMA_CM_EVENT_ESTABLISHED) == 0);
	}
}

int main(int argc, char **argv)
{
	MUST(argc > 2, "usage: cm_many server|client COUNT");
	struct rdma_event_channel *channel = new_channel();
	double since = now();
	if (!strcmp(argv[1], "server"))
		serve(channel, atoi(argv[2]));
	else
		ask(channel, atoi(argv[2]));
	printf("held %s in %.1f s\n", argv[2], now() - since);
	fflush(stdout);
	for (;;)
		pause();
}
