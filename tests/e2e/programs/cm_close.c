/* Destroys ids and channels in every state; the other side, in the same
 * process, must hear of it. cm_close STATE, or `all` of them. */
#include "cm.h"

static uint16_t port = 20000;
static struct rdma_event_channel *ours, *theirs;
static struct rdma_cm_id *listener;

static void setup(void)
{
	ours = new_channel();
	theirs = new_channel();
	listener = new_listener(theirs, server_address, ++port, 0);
}

static void teardown(void)
{
	if (listener)
		destroy(listener);
	listener = NULL;
	rdma_destroy_event_channel(ours);
	rdma_destroy_event_channel(theirs);
}

/* The request, or the connection, of a peer that went away before it stood. */
static void expect_failure(struct rdma_event_channel *channel)
{
	struct rdma_cm_event *event = next_event(channel);
	if (event->event != RDMA_CM_EVENT_REJECTED && event->event != RDMA_CM_EVENT_UNREACHABLE &&
	    event->event != RDMA_CM_EVENT_CONNECT_ERROR &&
	    event->event != RDMA_CM_EVENT_DISCONNECTED) {
		fprintf(stderr, "got %s instead of a failure\n", rdma_event_str(event->event));
		exit(1);
	}
	rdma_ack_cm_event(event);
}

static void created(void)
{
	destroy(new_id(ours));
}

static void bound(void)
{
	for (int i = 0; i < 2; i++) {
		struct rdma_cm_id *id = new_id(ours);
		struct sockaddr_storage address = address_of(server_address, 30000);
		/* The second time shows that the port was given back. */
		MUST(!rdma_bind_addr(id, (struct sockaddr *)&address), "bind");
		destroy(id);
	}
}

static void listening(void)
{
	destroy(listener);
	listener = NULL;
	struct rdma_cm_id *id = begin(ours, port);
	EXPECT(expect_event(ours, RDMA_CM_EVENT_REJECTED) == 8);
	destroy(id);
}

static void resolving(void)
{
	struct rdma_cm_id *id = new_id(ours);
	struct sockaddr_storage address = address_of(server_address, port);
	MUST(!rdma_resolve_addr(id, NULL, (struct sockaddr *)&address, 2000), "resolve_addr");
	/* Its event waits, and goes with it. */
	destroy(id);
	no_event(ours);
}

static void addr_resolved(void)
{
	destroy(resolve_addr(ours, server_address, port));
}

static void route_resolved(void)
{
	struct rdma_cm_id *id = resolve(ours, server_address, port);
	create_qp(id);
	destroy(id);
}

/* As in the kernel, a request that comes to nothing before it is accepted is
 * not told: accepting it fails. */
static void accept_too_late(struct rdma_cm_id *child)
{
	no_event(theirs);
	create_qp(child);
	struct rdma_conn_param param = conn_param();
	EXPECT(rdma_accept(child, &param) == -1);
	destroy(child);
}

static void connecting(void)
{
	struct rdma_cm_id *id = begin(ours, port);
	struct rdma_cm_id *child = expect_request(theirs);
	destroy(id);
	accept_too_late(child);
}

static void connecting_unseen(void)
{
	/* The request waits in the listener's queue when its sender goes. */
	destroy(begin(ours, port));
	accept_too_late(expect_request(theirs));
}

static void requested(void)
{
	struct rdma_cm_id *id = begin(ours, port);
	destroy(expect_request(theirs));
	expect_failure(ours);
	destroy(id);
}

static void requested_unseen(void)
{
	struct rdma_cm_id *id = begin(ours, port);
	destroy(listener);
	listener = NULL;
	expect_failure(ours);
	destroy(id);
}

static void accepted(void)
{
	struct rdma_cm_id *id = begin(ours, port);
	struct rdma_cm_id *child = expect_request(theirs);
	accept_it(child);
	/* The client has not looked at the answer yet. */
	destroy(child);
	struct rdma_cm_event *event = next_event(ours);
	if (event->event == RDMA_CM_EVENT_ESTABLISHED) {
		rdma_ack_cm_event(event);
		EXPECT(expect_event(ours, RDMA_CM_EVENT_DISCONNECTED) == 0);
	} else {
		EXPECT(event->event != RDMA_CM_EVENT_CONNECT_RESPONSE);
		rdma_ack_cm_event(event);
	}
	destroy(id);
}

static struct rdma_cm_id *establish(struct rdma_cm_id **child)
{
	struct rdma_cm_id *id = begin(ours, port);
	*child = expect_request(theirs);
	accept_it(*child);
	EXPECT(expect_event(ours, RDMA_CM_EVENT_ESTABLISHED) == 0);
	EXPECT(expect_event(theirs, RDMA_CM_EVENT_ESTABLISHED) == 0);
	return id;
}

static void client_connected(void)
{
	struct rdma_cm_id *child, *id = establish(&child);
	destroy(id);
	EXPECT(expect_event(theirs, RDMA_CM_EVENT_DISCONNECTED) == 0);
	destroy(child);
}

static void server_connected(void)
{
	struct rdma_cm_id *child, *id = establish(&child);
	destroy(child);
	EXPECT(expect_event(ours, RDMA_CM_EVENT_DISCONNECTED) == 0);
	destroy(id);
}

static void disconnecting(void)
{
	struct rdma_cm_id *child, *id = establish(&child);
	MUST(!rdma_disconnect(id), "rdma_disconnect");
	EXPECT(qp_state(id) == IBV_QPS_ERR);
	destroy(id);
	EXPECT(expect_event(theirs, RDMA_CM_EVENT_DISCONNECTED) == 0);
	destroy(child);
}

static void disconnected(void)
{
	struct rdma_cm_id *child, *id = establish(&child);
	MUST(!rdma_disconnect(id), "rdma_disconnect");
	EXPECT(expect_event(theirs, RDMA_CM_EVENT_DISCONNECTED) == 0);
	destroy(child);
	destroy(id);
}

static void both_at_once(void)
{
	struct rdma_cm_id *child, *id = establish(&child);
	MUST(!rdma_disconnect(id), "rdma_disconnect");
	MUST(!rdma_disconnect(child), "rdma_disconnect");
	EXPECT(expect_event(ours, RDMA_CM_EVENT_DISCONNECTED) == 0);
	EXPECT(expect_event(theirs, RDMA_CM_EVENT_DISCONNECTED) == 0);
	destroy(id);
	destroy(child);
}

/* The channel goes with an id on it, which ends its connection. */
static void channel_closed(void)
{
	struct rdma_cm_id *child;
	establish(&child);
	rdma_destroy_event_channel(ours);
	EXPECT(expect_event(theirs, RDMA_CM_EVENT_DISCONNECTED) == 0);
	destroy(child);
	ours = new_channel();
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} all[] = {
		{ "created", created },
		{ "bound", bound },
		{ "listening", listening },
		{ "resolving", resolving },
		{ "addr_resolved", addr_resolved },
		{ "route_resolved", route_resolved },
		{ "connecting", connecting },
		{ "connecting_unseen", connecting_unseen },
		{ "requested", requested },
		{ "requested_unseen", requested_unseen },
		{ "accepted", accepted },
		{ "client_connected", client_connected },
		{ "server_connected", server_connected },
		{ "disconnecting", disconnecting },
		{ "disconnected", disconnected },
		{ "both_at_once", both_at_once },
		{ "channel_closed", channel_closed },
	};
	MUST(argc > 1, "usage: cm_close STATE|all");
	alarm(100);
	int ran = 0;
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		if (strcmp(argv[1], "all") && strcmp(argv[1], all[i].name))
			continue;
		fprintf(stderr, "%s\n", all[i].name);
		setup();
		all[i].run();
		teardown();
		ran++;
	}
	printf("ok %d states\n", ran);
	return !ran;
}
