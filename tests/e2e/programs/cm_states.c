/* One side of a connection that goes as far as it is told and stays there,
 * saying `in STATE`; a side that is told `watch` says each event and ends with
 * the connection. A server that is told `late` accepts on SIGUSR1 only.
 * cm_states server|client STATE [ADDRESS [PORT]] */
#include "cm.h"
#include <signal.h>

static uint16_t port = 7471;
static const char *stop_at;

static void reached(const char *state)
{
	printf("in %s\n", state);
	fflush(stdout);
	if (strcmp(stop_at, state))
		return;
	for (;;)
		pause();
}

static double begun;

/* The next event, however long it takes. */
static struct rdma_cm_event *watch(struct rdma_event_channel *channel)
{
	struct rdma_cm_event *event;
	MUST(!rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
	printf("event %s status %d at %.3f\n", rdma_event_str(event->event), event->status,
	       now() - begun);
	fflush(stdout);
	return event;
}

static int is_end(enum rdma_cm_event_type kind)
{
	return kind == RDMA_CM_EVENT_DISCONNECTED || kind == RDMA_CM_EVENT_REJECTED ||
	       kind == RDMA_CM_EVENT_UNREACHABLE || kind == RDMA_CM_EVENT_CONNECT_ERROR;
}

/* Until the connection's end. */
static void watch_all(struct rdma_event_channel *channel, const char *established)
{
	for (;;) {
		struct rdma_cm_event *event = watch(channel);
		enum rdma_cm_event_type kind = event->event;
		rdma_ack_cm_event(event);
		if (kind == RDMA_CM_EVENT_ESTABLISHED)
			reached(established);
		if (is_end(kind))
			return;
	}
}

static void server(struct rdma_event_channel *channel)
{
	struct rdma_cm_id *listener = new_listener(channel, server_address, port, 0);
	reached("listening");
	struct rdma_cm_event *event = watch(channel);
	EXPECT(event->event == RDMA_CM_EVENT_CONNECT_REQUEST);
	struct rdma_cm_id *child = event->id;
	rdma_ack_cm_event(event);
	reached("requested");
	if (!strcmp(stop_at, "late")) {
		sigset_t set;
		int signal;
		sigemptyset(&set);
		sigaddset(&set, SIGUSR1);
		EXPECT(!sigwait(&set, &signal));
		create_qp(child);
		struct rdma_conn_param param = conn_param();
		printf("accept %d\n", rdma_accept(child, &param));
	} else {
		accept_it(child);
		reached("accepted");
		watch_all(channel, "connected");
	}
	destroy(child);
	destroy(listener);
}

static void client(struct rdma_event_channel *channel)
{
	struct rdma_cm_id *id = resolve_addr(channel, server_address, port);
	reached("addr_resolved");
	MUST(!rdma_resolve_route(id, 2000), "resolve_route");
	EXPECT(expect_event(channel, RDMA_CM_EVENT_ROUTE_RESOLVED) == 0);
	reached("route_resolved");
	create_qp(id);
	struct rdma_conn_param param = conn_param();
	begun = now();
	MUST(!rdma_connect(id, &param), "connect");
	reached("connecting");
	if (!strcmp(stop_at, "disconnecting")) {
		EXPECT(expect_event(channel, RDMA_CM_EVENT_ESTABLISHED) == 0);
		MUST(!rdma_disconnect(id), "disconnect");
		reached("disconnecting");
	}
	watch_all(channel, "connected");
	destroy(id);
}

int main(int argc, char **argv)
{
	MUST(argc > 2, "usage: cm_states server|client STATE [ADDRESS [PORT]]");
	stop_at = argv[2];
	if (argc > 3)
		server_address = argv[3];
	if (argc > 4)
		port = (uint16_t)atoi(argv[4]);
	begun = now();
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	struct rdma_event_channel *channel = new_channel();
	if (!strcmp(argv[1], "server"))
		server(channel);
	else
		client(channel);
	rdma_destroy_event_channel(channel);
	puts("end");
	return 0;
}
