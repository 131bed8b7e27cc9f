/* Both sides of rdma_cm: channels with a deadline, ids, events. */
#ifndef CM_H
#define CM_H
#include "loop.h"
#include <fcntl.h>
#include <rdma/rdma_cma.h>

#define WAIT_MS 15000

static const char *server_address = "10.0.0.1";

/* An IPv4 or IPv6 address and a port; no address: the wildcard. */
static inline struct sockaddr_storage address_of(const char *text, uint16_t port)
{
	struct sockaddr_storage any = { 0 };
	struct sockaddr_in *v4 = (void *)&any;
	struct sockaddr_in6 *v6 = (void *)&any;
	if (text && strchr(text, ':')) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		EXPECT(inet_pton(AF_INET6, text, &v6->sin6_addr) == 1);
	} else {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		EXPECT(!text || inet_pton(AF_INET, text, &v4->sin_addr) == 1);
	}
	return any;
}

static inline struct rdma_event_channel *new_channel(void)
{
	struct rdma_event_channel *channel = rdma_create_event_channel();
	MUST(channel, "rdma_create_event_channel");
	return channel;
}

static inline struct rdma_cm_id *new_id(struct rdma_event_channel *channel)
{
	struct rdma_cm_id *id;
	MUST(!rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), "rdma_create_id");
	return id;
}

static inline int readable(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	return poll(&p, 1, ms) == 1;
}

/* The channel's next event, which must come in time. */
static inline struct rdma_cm_event *next_event(struct rdma_event_channel *channel)
{
	struct rdma_cm_event *event;
	if (!readable(channel->fd, WAIT_MS)) {
		fprintf(stderr, "no event within %d ms\n", WAIT_MS);
		exit(1);
	}
	MUST(!rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
	return event;
}

static inline struct rdma_cm_event *expect_kind(struct rdma_event_channel *channel,
						enum rdma_cm_event_type kind)
{
	struct rdma_cm_event *event = next_event(channel);
	if (event->event != kind) {
		fprintf(stderr, "expected %s, got %s with status %d\n", rdma_event_str(kind),
			rdma_event_str(event->event), event->status);
		exit(1);
	}
	return event;
}

/* An event of this kind; its status. */
static inline int expect_event(struct rdma_event_channel *channel, enum rdma_cm_event_type kind)
{
	struct rdma_cm_event *event = expect_kind(channel, kind);
	int status = event->status;
	rdma_ack_cm_event(event);
	return status;
}

static inline void no_event(struct rdma_event_channel *channel)
{
	EXPECT(!readable(channel->fd, 50));
}

static inline struct rdma_cm_id *new_listener(struct rdma_event_channel *channel, const char *at,
					      uint16_t port, int backlog)
{
	struct rdma_cm_id *id = new_id(channel);
	struct sockaddr_storage address = address_of(at, port);
	MUST(!rdma_bind_addr(id, (struct sockaddr *)&address), "rdma_bind_addr");
	MUST(!rdma_listen(id, backlog), "rdma_listen");
	return id;
}

/* The connection that a listener was asked for. */
static inline struct rdma_cm_id *expect_request(struct rdma_event_channel *channel)
{
	struct rdma_cm_event *event = expect_kind(channel, RDMA_CM_EVENT_CONNECT_REQUEST);
	struct rdma_cm_id *child = event->id;
	rdma_ack_cm_event(event);
	return child;
}

/* The completion queue of all queue pairs; NULL: each id has its own two, with
 * completion channels, as librdmacm makes them. */
static struct ibv_cq *shared_cq;

static inline void share_cq(struct rdma_cm_id *id)
{
	if (!shared_cq)
		MUST(shared_cq = ibv_create_cq(id->verbs, 4096, NULL, NULL, 0), "ibv_create_cq");
}

static inline void create_qp(struct rdma_cm_id *id)
{
	struct ibv_qp_init_attr init = {
		.qp_type = IBV_QPT_RC,
		.send_cq = shared_cq,
		.recv_cq = shared_cq,
		.cap = { .max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1 },
	};
	MUST(!rdma_create_qp(id, NULL, &init), "rdma_create_qp");
}

static inline struct rdma_cm_id *resolve_addr(struct rdma_event_channel *channel, const char *to,
					      uint16_t port)
{
	struct rdma_cm_id *id = new_id(channel);
	struct sockaddr_storage address = address_of(to, port);
	MUST(!rdma_resolve_addr(id, NULL, (struct sockaddr *)&address, 2000), "rdma_resolve_addr");
	EXPECT(expect_event(channel, RDMA_CM_EVENT_ADDR_RESOLVED) == 0);
	return id;
}

static inline struct rdma_cm_id *resolve(struct rdma_event_channel *channel, const char *to,
					 uint16_t port)
{
	struct rdma_cm_id *id = resolve_addr(channel, to, port);
	MUST(!rdma_resolve_route(id, 2000), "rdma_resolve_route");
	EXPECT(expect_event(channel, RDMA_CM_EVENT_ROUTE_RESOLVED) == 0);
	return id;
}

static inline struct rdma_conn_param conn_param(void)
{
	struct rdma_conn_param param = { .responder_resources = 1,
					 .initiator_depth = 1,
					 .retry_count = 7,
					 .rnr_retry_count = 7 };
	return param;
}

/* A request is sent; nobody has answered it. */
static inline struct rdma_cm_id *begin(struct rdma_event_channel *channel, uint16_t port)
{
	struct rdma_cm_id *id = resolve(channel, server_address, port);
	create_qp(id);
	struct rdma_conn_param param = conn_param();
	MUST(!rdma_connect(id, &param), "rdma_connect");
	return id;
}

static inline void accept_it(struct rdma_cm_id *child)
{
	create_qp(child);
	struct rdma_conn_param param = conn_param();
	MUST(!rdma_accept(child, &param), "rdma_accept");
}

static inline void destroy(struct rdma_cm_id *id)
{
	if (id->qp)
		rdma_destroy_qp(id);
	MUST(!rdma_destroy_id(id), "rdma_destroy_id");
}

/* A queue pair's state as the device has it. */
static inline int qp_state(struct rdma_cm_id *id)
{
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;
	EXPECT(!ibv_query_qp(id->qp, &attr, IBV_QP_STATE, &init));
	return attr.qp_state;
}
#endif
