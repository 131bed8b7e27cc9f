/* What librdmacm offers and no tool uses, both sides in one process:
 * cm_api WHAT [ADDRESS]; prints `ok WHAT`. */
#include "cm.h"
#include <pthread.h>
#include <rdma/rdma_verbs.h>
#include <sys/epoll.h>

#define SERVICE 7471

struct pair {
	struct rdma_event_channel *server_channel, *client_channel;
	struct rdma_cm_id *listener, *server, *client;
};

static struct pair listening(int backlog)
{
	struct pair p = { new_channel(), new_channel(), NULL, NULL, NULL };
	p.listener = new_listener(p.server_channel, server_address, SERVICE, backlog);
	return p;
}

static void take(struct pair *p)
{
	p->server = expect_request(p->server_channel);
	accept_it(p->server);
	EXPECT(expect_event(p->client_channel, RDMA_CM_EVENT_ESTABLISHED) == 0);
	EXPECT(expect_event(p->server_channel, RDMA_CM_EVENT_ESTABLISHED) == 0);
}

static struct pair connected(void)
{
	struct pair p = listening(0);
	p.client = begin(p.client_channel, SERVICE);
	take(&p);
	return p;
}

static void part(struct pair *p)
{
	MUST(!rdma_disconnect(p->client), "rdma_disconnect");
	EXPECT(expect_event(p->server_channel, RDMA_CM_EVENT_DISCONNECTED) == 0);
	MUST(!rdma_disconnect(p->server), "rdma_disconnect");
	EXPECT(expect_event(p->client_channel, RDMA_CM_EVENT_DISCONNECTED) == 0);
}

static void end(struct pair *p)
{
	if (p->server)
		destroy(p->server);
	if (p->client)
		destroy(p->client);
	destroy(p->listener);
	rdma_destroy_event_channel(p->server_channel);
	rdma_destroy_event_channel(p->client_channel);
}

/* The one event that an epoll set reports. */
static struct rdma_cm_event *by_epoll(int set, struct rdma_event_channel **from)
{
	struct epoll_event ready;
	EXPECT(epoll_wait(set, &ready, 1, WAIT_MS) == 1);
	*from = ready.data.ptr;
	struct rdma_cm_event *event;
	MUST(!rdma_get_cm_event(*from, &event), "rdma_get_cm_event");
	return event;
}

static void epoll(void)
{
	struct pair p = listening(0);
	int set = epoll_create1(0);
	struct rdma_event_channel *both[] = { p.server_channel, p.client_channel }, *from;
	struct rdma_cm_event *event;
	for (int i = 0; i < 2; i++) {
		int flags = fcntl(both[i]->fd, F_GETFL);
		EXPECT(flags >= 0 && !fcntl(both[i]->fd, F_SETFL, flags | O_NONBLOCK));
		EXPECT(rdma_get_cm_event(both[i], &event) == -1 && errno == EAGAIN);
		struct epoll_event ask = { .events = EPOLLIN, .data.ptr = both[i] };
		/* One of them by a copy of its descriptor. */
		int fd = i ? dup(both[i]->fd) : both[i]->fd;
		EXPECT(fd >= 0 && !epoll_ctl(set, EPOLL_CTL_ADD, fd, &ask));
	}
	p.client = new_id(p.client_channel);
	struct sockaddr_storage to = address_of(server_address, SERVICE);
	MUST(!rdma_resolve_addr(p.client, NULL, (struct sockaddr *)&to, 2000), "resolve_addr");
	struct rdma_conn_param param = conn_param();
	int established = 0, disconnected = 0;
	while (disconnected < 2) {
		event = by_epoll(set, &from);
		struct rdma_cm_id *id = event->id;
		enum rdma_cm_event_type kind = event->event;
		rdma_ack_cm_event(event);
		EXPECT((from == p.client_channel) == (id == p.client));
		if (kind == RDMA_CM_EVENT_ADDR_RESOLVED) {
			MUST(!rdma_resolve_route(id, 2000), "resolve_route");
		} else if (kind == RDMA_CM_EVENT_ROUTE_RESOLVED) {
			create_qp(id);
			MUST(!rdma_connect(id, &param), "connect");
		} else if (kind == RDMA_CM_EVENT_CONNECT_REQUEST) {
			p.server = id;
			accept_it(id);
		} else if (kind == RDMA_CM_EVENT_ESTABLISHED) {
			if (++established == 2)
				MUST(!rdma_disconnect(p.client), "disconnect");
		} else {
			EXPECT(kind == RDMA_CM_EVENT_DISCONNECTED);
			if (++disconnected == 1)
				MUST(!rdma_disconnect(p.server), "disconnect");
		}
	}
	struct epoll_event none;
	EXPECT(epoll_wait(set, &none, 1, 50) == 0);
	for (int i = 0; i < 2; i++)
		EXPECT(rdma_get_cm_event(both[i], &event) == -1 && errno == EAGAIN);
	end(&p);
	close(set);
}

/* An id goes to another channel with what waits for it. */
static void migrate(void)
{
	struct pair p = connected();
	struct rdma_event_channel *other = new_channel();
	MUST(!rdma_disconnect(p.client), "rdma_disconnect");
	EXPECT(readable(p.server_channel->fd, WAIT_MS));
	MUST(!rdma_migrate_id(p.server, other), "rdma_migrate_id");
	EXPECT(p.server->channel == other);
	no_event(p.server_channel);
	struct rdma_cm_event *event = expect_kind(other, RDMA_CM_EVENT_DISCONNECTED);
	EXPECT(event->id == p.server);
	rdma_ack_cm_event(event);
	no_event(other);
	/* And the listener, whose requests come on the new channel from now on. */
	MUST(!rdma_migrate_id(p.listener, other), "rdma_migrate_id");
	destroy(p.client);
	destroy(p.server);
	struct rdma_event_channel *fresh = new_channel();
	p.client = begin(fresh, SERVICE);
	p.server = expect_request(other);
	no_event(p.server_channel);
	accept_it(p.server);
	EXPECT(expect_event(fresh, RDMA_CM_EVENT_ESTABLISHED) == 0);
	EXPECT(expect_event(other, RDMA_CM_EVENT_ESTABLISHED) == 0);
	end(&p);
	rdma_destroy_event_channel(fresh);
	rdma_destroy_event_channel(other);
}

static int set(struct rdma_cm_id *id, int option, void *value, size_t len)
{
	return rdma_set_option(id, RDMA_OPTION_ID, option, value, len);
}

static int try_bind(struct rdma_cm_id *id, const char *text)
{
	struct sockaddr_storage address = address_of(text, SERVICE);
	return rdma_bind_addr(id, (struct sockaddr *)&address);
}

static void options(void)
{
	struct rdma_event_channel *channel = new_channel();
	int on = 1;
	uint8_t tos = 0x28, timeout = 17;
	struct rdma_cm_id *first = new_id(channel), *second = new_id(channel);
	EXPECT(!try_bind(first, server_address));
	EXPECT(try_bind(second, server_address) == -1 && errno == EADDRINUSE);
	destroy(first);
	destroy(second);

	first = new_id(channel), second = new_id(channel);
	EXPECT(!set(first, RDMA_OPTION_ID_REUSEADDR, &on, sizeof on));
	EXPECT(!set(second, RDMA_OPTION_ID_REUSEADDR, &on, sizeof on));
	EXPECT(!try_bind(first, server_address) && !try_bind(second, server_address));
	/* Bound they may share it; who listens must have it alone. */
	EXPECT(rdma_listen(first, 0) == -1 && errno == EADDRINUSE);
	destroy(second);
	MUST(!rdma_listen(first, 0), "listen");
	destroy(first);

	first = new_id(channel), second = new_id(channel);
	EXPECT(!set(first, RDMA_OPTION_ID_AFONLY, &on, sizeof on));
	EXPECT(!try_bind(first, "::") && !try_bind(second, NULL));
	destroy(first);
	destroy(second);

	first = new_id(channel);
	EXPECT(set(first, 99, &on, sizeof on) == -1);
	EXPECT(rdma_set_option(first, 7, 0, &on, sizeof on) == -1);
	EXPECT(set(first, RDMA_OPTION_ID_TOS, &tos, 0) == -1);
	EXPECT(try_bind(first, "192.0.2.9") == -1 && errno == EADDRNOTAVAIL);
	destroy(first);

	struct pair p = listening(0);
	p.client = resolve_addr(p.client_channel, server_address, SERVICE);
	EXPECT(!set(p.client, RDMA_OPTION_ID_TOS, &tos, sizeof tos));
	EXPECT(!set(p.client, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, sizeof timeout));
	MUST(!rdma_resolve_route(p.client, 2000), "resolve_route");
	EXPECT(expect_event(p.client_channel, RDMA_CM_EVENT_ROUTE_RESOLVED) == 0);
	create_qp(p.client);
	struct rdma_conn_param param = conn_param();
	MUST(!rdma_connect(p.client, &param), "connect");
	take(&p);
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;
	EXPECT(!ibv_query_qp(p.client->qp, &attr, IBV_QP_TIMEOUT | IBV_QP_AV, &init));
	EXPECT(attr.timeout == timeout);
	EXPECT(attr.ah_attr.grh.traffic_class == tos);
	end(&p);
	rdma_destroy_event_channel(channel);
}

static void *sync_server(void *listener)
{
	struct rdma_cm_id *id;
	MUST(!rdma_get_request(listener, &id), "rdma_get_request");
	char in[64];
	struct ibv_mr *mr = rdma_reg_msgs(id, in, sizeof in);
	MUST(mr && !rdma_post_recv(id, NULL, in, sizeof in, mr), "post_recv");
	MUST(!rdma_accept(id, NULL), "rdma_accept");
	struct ibv_wc wc;
	EXPECT(rdma_get_recv_comp(id, &wc) == 1 && wc.status == IBV_WC_SUCCESS);
	EXPECT(wc.byte_len == 6 && !memcmp(in, "hello", 6));
	EXPECT(!rdma_disconnect(id));
	rdma_dereg_mr(mr);
	rdma_destroy_ep(id);
	return NULL;
}

/* Ids without an event channel, made by rdma_create_ep. */
static void create_ep(void)
{
	struct rdma_addrinfo hints = { .ai_flags = RAI_PASSIVE, .ai_port_space = RDMA_PS_TCP };
	struct rdma_addrinfo *passive, *active;
	char *at = (char *)server_address;
	EXPECT(!rdma_getaddrinfo(at, "7471", &hints, &passive));
	hints.ai_flags = 0;
	EXPECT(!rdma_getaddrinfo(at, "7471", &hints, &active));
	struct ibv_qp_init_attr init = {
		.cap = { .max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1 },
		.sq_sig_all = 1,
	};
	struct rdma_cm_id *listener, *id;
	MUST(!rdma_create_ep(&listener, passive, NULL, &init), "rdma_create_ep");
	MUST(!rdma_listen(listener, 0), "rdma_listen");
	pthread_t thread;
	EXPECT(!pthread_create(&thread, NULL, sync_server, listener));
	MUST(!rdma_create_ep(&id, active, NULL, &init), "rdma_create_ep");
	MUST(!rdma_connect(id, NULL), "rdma_connect");
	char out[] = "hello";
	struct ibv_mr *mr = rdma_reg_msgs(id, out, sizeof out);
	MUST(mr && !rdma_post_send(id, NULL, out, sizeof out, mr, 0), "post_send");
	struct ibv_wc wc;
	EXPECT(rdma_get_send_comp(id, &wc) == 1 && wc.status == IBV_WC_SUCCESS);
	/* Each side's waits for the other's. */
	EXPECT(!rdma_disconnect(id));
	pthread_join(thread, NULL);
	rdma_dereg_mr(mr);
	rdma_destroy_ep(id);
	rdma_destroy_ep(listener);
	rdma_freeaddrinfo(passive);
	rdma_freeaddrinfo(active);
}

/* The server learns by a message, before the RTU, that it is connected. */
static void notify(void)
{
	struct pair p = listening(0);
	p.client = resolve(p.client_channel, server_address, SERVICE);
	EXPECT(rdma_notify(p.client, IBV_EVENT_COMM_EST) == -1);
	create_qp(p.client);
	/* A queue pair of one's own: librdmacm sends no RTU by itself. */
	struct ibv_qp *qp = p.client->qp;
	p.client->qp = NULL;
	struct rdma_conn_param param = conn_param();
	param.qp_num = qp->qp_num;
	MUST(!rdma_connect(p.client, &param), "rdma_connect");
	p.server = expect_request(p.server_channel);
	accept_it(p.server);
	EXPECT(expect_event(p.client_channel, RDMA_CM_EVENT_CONNECT_RESPONSE) == 0);
	no_event(p.server_channel);
	MUST(!rdma_notify(p.server, IBV_EVENT_COMM_EST), "rdma_notify");
	EXPECT(expect_event(p.server_channel, RDMA_CM_EVENT_ESTABLISHED) == 0);
	MUST(!rdma_establish(p.client), "rdma_establish");
	no_event(p.server_channel);
	p.client->qp = qp;
	part(&p);
	end(&p);
}

static void pattern(uint8_t *to, size_t len, uint8_t seed)
{
	for (size_t i = 0; i < len; i++)
		to[i] = (uint8_t)(seed + 7 * i);
}

/* The event's private data begins with the pattern. */
static void carries(struct rdma_cm_event *event, size_t len, uint8_t seed)
{
	uint8_t wanted[256];
	pattern(wanted, len, seed);
	EXPECT(event->param.conn.private_data_len >= len);
	EXPECT(!memcmp(event->param.conn.private_data, wanted, len));
}

static void private_data(void)
{
	uint8_t data[256];
	struct pair p = listening(0);
	p.client = resolve(p.client_channel, server_address, SERVICE);
	create_qp(p.client);
	struct rdma_conn_param param = conn_param();
	pattern(data, sizeof data, 1);
	param.private_data = data;
	param.private_data_len = 57;
	EXPECT(rdma_connect(p.client, &param) == -1 && errno == EINVAL);
	param.private_data_len = 56;
	MUST(!rdma_connect(p.client, &param), "rdma_connect");
	struct rdma_cm_event *event =
		expect_kind(p.server_channel, RDMA_CM_EVENT_CONNECT_REQUEST);
	carries(event, 56, 1);
	EXPECT(event->listen_id == p.listener);
	EXPECT(event->param.conn.qp_num == p.client->qp->qp_num);
	EXPECT(event->param.conn.rnr_retry_count == 7);
	p.server = event->id;
	rdma_ack_cm_event(event);
	create_qp(p.server);
	pattern(data, sizeof data, 2);
	param.private_data_len = 196;
	MUST(!rdma_accept(p.server, &param), "rdma_accept");
	event = expect_kind(p.client_channel, RDMA_CM_EVENT_ESTABLISHED);
	carries(event, 196, 2);
	rdma_ack_cm_event(event);
	EXPECT(expect_event(p.server_channel, RDMA_CM_EVENT_ESTABLISHED) == 0);
	EXPECT(rdma_get_dst_port(p.client) == htons(SERVICE));
	EXPECT(rdma_get_src_port(p.client) == rdma_get_dst_port(p.server));
	part(&p);
	end(&p);
}

static void reject(void)
{
	uint8_t data[148];
	pattern(data, sizeof data, 3);
	struct pair p = listening(0);
	p.client = begin(p.client_channel, SERVICE);
	struct rdma_cm_id *child = expect_request(p.server_channel);
	MUST(!rdma_reject(child, data, sizeof data), "rdma_reject");
	destroy(child);
	struct rdma_cm_event *event = expect_kind(p.client_channel, RDMA_CM_EVENT_REJECTED);
	EXPECT(event->status == 28);
	carries(event, sizeof data, 3);
	rdma_ack_cm_event(event);
	end(&p);
}

/* Two requests may wait; the third to fifth are told that there is no room. */
static void backlog(void)
{
	struct pair p = listening(2);
	struct rdma_event_channel *channels[5];
	struct rdma_cm_id *clients[5], *servers[2];
	for (int i = 0; i < 5; i++) {
		channels[i] = new_channel();
		clients[i] = begin(channels[i], SERVICE);
		if (i >= 2)
			EXPECT(expect_event(channels[i], RDMA_CM_EVENT_REJECTED) == 3);
		else
			no_event(channels[i]);
	}
	for (int i = 0; i < 2; i++)
		servers[i] = expect_request(p.server_channel);
	for (int i = 0; i < 2; i++) {
		accept_it(servers[i]);
		EXPECT(expect_event(channels[i], RDMA_CM_EVENT_ESTABLISHED) == 0);
		EXPECT(expect_event(p.server_channel, RDMA_CM_EVENT_ESTABLISHED) == 0);
	}
	/* There is room again. */
	p.client = begin(p.client_channel, SERVICE);
	take(&p);
	for (int i = 0; i < 5; i++) {
		destroy(clients[i]);
		rdma_destroy_event_channel(channels[i]);
	}
	for (int i = 0; i < 2; i++) {
		EXPECT(expect_event(p.server_channel, RDMA_CM_EVENT_DISCONNECTED) == 0);
		destroy(servers[i]);
	}
	end(&p);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} all[] = {
		{ "epoll", epoll },		{ "migrate", migrate }, { "options", options },
		{ "create_ep", create_ep },	{ "notify", notify },	{ "reject", reject },
		{ "private_data", private_data }, { "backlog", backlog },
	};
	MUST(argc > 1, "usage: cm_api WHAT [ADDRESS]");
	if (argc > 2)
		server_address = argv[2];
	alarm(60);
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		if (!strcmp(argv[1], all[i].name)) {
			all[i].run();
			printf("ok %s\n", argv[1]);
			return 0;
		}
	}
	fprintf(stderr, "no such part: %s\n", argv[1]);
	return 1;
}
