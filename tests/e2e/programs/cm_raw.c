/* Bad commands on the descriptor of /dev/infiniband/rdma_cm, and the errno of
 * each. They are written as librdmacm writes: masq answers that library's own
 * calls (docs/adr/0012). */
#define _GNU_SOURCE
#include "loop.h"
#include "slot.h"
#include <fcntl.h>
#include <rdma/rdma_user_cm.h>
#include <sys/stat.h>

struct command {
	struct rdma_ucm_cmd_hdr hdr;
	union {
		struct rdma_ucm_create_id create;
		struct rdma_ucm_destroy_id destroy;
		struct rdma_ucm_bind_ip bind;
		struct rdma_ucm_resolve_ip resolve;
		struct rdma_ucm_resolve_route route;
		struct rdma_ucm_query query;
		struct rdma_ucm_connect connect;
		struct rdma_ucm_listen listen;
		struct rdma_ucm_accept accept;
		struct rdma_ucm_reject reject;
		struct rdma_ucm_init_qp_attr qp_attr;
		struct rdma_ucm_get_event event;
		struct rdma_ucm_set_option option;
		struct rdma_ucm_notify notify;
		struct rdma_ucm_join_mcast join;
		struct rdma_ucm_migrate_id migrate;
		unsigned char bytes[1024];
	} u;
};

struct rdma_event_channel *rdma_create_event_channel(void);

static int (*cm_open)(const char *, int, ...);
static ssize_t (*cm_write)(int, const void *, size_t);
static int (*cm_fstat)(int, struct stat *);
static int (*cm_close)(int);

static void find_calls(void)
{
	/* librdmacm begins, and asks libibverbs for devices. */
	MUST(rdma_create_event_channel(), "rdma_create_event_channel");
	cm_open = slot_of("librdmacm", "open");
	cm_write = slot_of("librdmacm", "write");
	cm_fstat = slot_of("librdmacm", "fstat");
	cm_close = slot_of("librdmacm", "close");
	EXPECT(cm_open && cm_write && cm_fstat && cm_close);
}

static int open_cm(void)
{
	int fd = cm_open("/dev/infiniband/rdma_cm", O_RDWR | O_CLOEXEC);
	MUST(fd >= 0, "open /dev/infiniband/rdma_cm");
	return fd;
}

/* Writes a command of `in` bytes whose header says so; 0 or the errno. */
static int call(int fd, struct command *c, uint32_t cmd, uint16_t in, uint16_t out)
{
	c->hdr = (struct rdma_ucm_cmd_hdr){ .cmd = cmd, .in = in, .out = out };
	ssize_t n = cm_write(fd, c, sizeof c->hdr + in);
	EXPECT(n == -1 || n == (ssize_t)sizeof c->hdr + in);
	return n == -1 ? errno : 0;
}

static void expect_errno(const char *what, int got, int wanted)
{
	if (got != wanted) {
		fprintf(stderr, "%s: errno %d (%s), expected %d (%s)\n", what, got, strerror(got),
			wanted, strerror(wanted));
		exit(1);
	}
}

static int create(int fd, void *response, uint32_t *id)
{
	static struct rdma_ucm_create_id_resp resp;
	struct command c = { .u.create = { .uid = 1,
					   .response = (uintptr_t)(response ? response : &resp),
					   .ps = RDMA_PS_TCP,
					   .qp_type = IBV_QPT_RC } };
	int error = call(fd, &c, RDMA_USER_CM_CMD_CREATE_ID, sizeof c.u.create, sizeof resp);
	if (id)
		*id = resp.id;
	return error;
}

static int destroy_raw(int fd, uint32_t id, void *response)
{
	struct rdma_ucm_destroy_id_resp resp;
	struct command c = { .u.destroy = { .response = (uintptr_t)(response ? response : &resp),
					    .id = id } };
	return call(fd, &c, RDMA_USER_CM_CMD_DESTROY_ID, sizeof c.u.destroy, sizeof resp);
}

static void lengths(int fd)
{
	struct command c = { 0 };
	c.hdr = (struct rdma_ucm_cmd_hdr){ .cmd = RDMA_USER_CM_CMD_CREATE_ID,
					   .in = sizeof c.u.create,
					   .out = 4 };
	for (size_t n = 0; n < sizeof c.hdr + sizeof c.u.create; n++) {
		ssize_t wrote = cm_write(fd, &c, n);
		expect_errno("truncated", wrote == -1 ? errno : 0, EINVAL);
	}
	static unsigned char large[1 << 20];
	memset(large, 0xff, sizeof large);
	expect_errno("a mebibyte of ones", cm_write(fd, large, sizeof large) == -1 ? errno : 0, EINVAL);
	memcpy(large, &c.hdr, sizeof c.hdr);
	/* One that says less than there is, with a response nowhere. */
	EXPECT(cm_write(fd, large, sizeof large) == -1);
	struct rdma_ucm_create_id_resp resp;
	c.u.create = (struct rdma_ucm_create_id){ .response = (uintptr_t)&resp,
						  .ps = RDMA_PS_TCP };
	expect_errno("no room for the response",
		     call(fd, &c, RDMA_USER_CM_CMD_CREATE_ID, sizeof c.u.create, 3), ENOSPC);
}

static void unknown(int fd)
{
	struct command c = { 0 };
	uint32_t commands[] = { RDMA_USER_CM_CMD_JOIN_MCAST + 1, 64, 0x7fffffff, 0xffffffff };
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		/* Kernels say the one or the other, by their age. */
		int error = call(fd, &c, commands[i], 64, 64);
		EXPECT(error == EINVAL || error == ENOSYS);
	}
}

static void pointers(int fd)
{
	void *nowhere[] = { (void *)1, (void *)0xffff888000000000, (void *)-8L, (void *)4096 };
	for (size_t i = 0; i < sizeof nowhere / sizeof nowhere[0]; i++)
		expect_errno("response nowhere", create(fd, nowhere[i], NULL), EFAULT);
	struct command c = { .u.create = { .ps = RDMA_PS_TCP, .qp_type = IBV_QPT_RC } };
	expect_errno("response NULL",
		     call(fd, &c, RDMA_USER_CM_CMD_CREATE_ID, sizeof c.u.create, 4), EFAULT);
	/* volatile: the compiler would refuse to pass it. */
	void *volatile one = (void *)1;
	expect_errno("a command nowhere", cm_write(fd, one, 64) == -1 ? errno : 0, EFAULT);

	uint32_t id;
	expect_errno("create", create(fd, NULL, &id), 0);
	struct command q = { .u.query = { .response = 1, .id = id } };
	uint16_t out = sizeof(struct rdma_ucm_query_route_resp);
	expect_errno("query nowhere",
		     call(fd, &q, RDMA_USER_CM_CMD_QUERY_ROUTE, sizeof q.u.query, out), EFAULT);
	struct command o = { .u.option = { .optval = 1, .id = id, .optlen = 1 } };
	expect_errno("option nowhere",
		     call(fd, &o, RDMA_USER_CM_CMD_SET_OPTION, sizeof o.u.option, 0), EFAULT);
	expect_errno("destroy nowhere", destroy_raw(fd, id, (void *)1), EFAULT);
	/* In the kernel it is gone nevertheless; here it may be there still. */
	int again = destroy_raw(fd, id, NULL);
	EXPECT(again == ENOENT || again == 0);
}

static void ids(int fd, int other)
{
	uint32_t id;
	expect_errno("create", create(fd, NULL, &id), 0);
	expect_errno("destroy by another channel", destroy_raw(other, id, NULL), EINVAL);
	struct command c = { .u.listen = { .id = id, .backlog = 1 } };
	expect_errno("listen by another channel",
		     call(other, &c, RDMA_USER_CM_CMD_LISTEN, sizeof c.u.listen, 0), EINVAL);
	uint32_t unknown_ids[] = { id + 1000, 0xffffffff, 0x80000000 };
	for (size_t i = 0; i < sizeof unknown_ids / sizeof unknown_ids[0]; i++) {
		expect_errno("unknown id", destroy_raw(fd, unknown_ids[i], NULL), ENOENT);
		c.u.listen.id = unknown_ids[i];
		expect_errno("unknown id",
			     call(fd, &c, RDMA_USER_CM_CMD_LISTEN, sizeof c.u.listen, 0), ENOENT);
	}
	struct command r = { .u.route = { .id = id, .timeout_ms = 1 } };
	expect_errno("a route before an address",
		     call(fd, &r, RDMA_USER_CM_CMD_RESOLVE_ROUTE, sizeof r.u.route, 0), EINVAL);
	struct rdma_ucm_migrate_resp resp;
	struct command m = { .u.migrate = { .response = (uintptr_t)&resp, .id = id, .fd = 0 } };
	int error = call(other, &m, RDMA_USER_CM_CMD_MIGRATE_ID, sizeof m.u.migrate, sizeof resp);
	EXPECT(error == EINVAL || error == EBADF);
	expect_errno("destroy", destroy_raw(fd, id, NULL), 0);
	expect_errno("destroy again", destroy_raw(fd, id, NULL), ENOENT);
}

static void events(int fd)
{
	struct rdma_ucm_event_resp resp;
	struct command c = { .u.event = { .response = (uintptr_t)&resp } };
	EXPECT(!fcntl(fd, F_SETFL, O_NONBLOCK));
	expect_errno("no event",
		     call(fd, &c, RDMA_USER_CM_CMD_GET_EVENT, sizeof c.u.event, sizeof resp),
		     EAGAIN);
}

/* Commands of random contents: each ends, with or without an errno. */
static void noise(int fd, unsigned rounds)
{
	static unsigned char scratch[4096];
	unsigned seed = 7;
	for (unsigned i = 0; i < rounds; i++) {
		struct command c;
		unsigned char *bytes = (unsigned char *)&c;
		for (size_t b = 0; b < sizeof c; b++)
			bytes[b] = (unsigned char)(rand_r(&seed) >> 7);
		/* Often a response that leads somewhere, and a small id. */
		if (i % 2)
			memcpy(c.u.bytes, &(uint64_t){ (uintptr_t)scratch }, 8);
		if (i % 3)
			memcpy(c.u.bytes + 8, &(uint32_t){ i % 8 }, 4);
		uint32_t cmd = (uint32_t)rand_r(&seed) % (RDMA_USER_CM_CMD_JOIN_MCAST + 2);
		call(fd, &c, cmd, (uint16_t)((uint32_t)rand_r(&seed) % sizeof c.u), 1024);
	}
}

int main(void)
{
	alarm(60);
	find_calls();
	int fd = open_cm(), other = open_cm();
	struct stat st;
	EXPECT(!cm_fstat(fd, &st) && S_ISCHR(st.st_mode));
	lengths(fd);
	unknown(fd);
	pointers(fd);
	ids(fd, other);
	events(fd);
	int third = open_cm();
	EXPECT(!fcntl(third, F_SETFL, O_NONBLOCK));
	noise(third, 20000);
	cm_close(third);
	/* What was there before still works. */
	uint32_t id;
	expect_errno("create", create(fd, NULL, &id), 0);
	expect_errno("destroy", destroy_raw(fd, id, NULL), 0);
	cm_close(fd);
	cm_close(other);
	puts("ok");
	return 0;
}
