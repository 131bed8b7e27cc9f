/* Every opcode between two processes, contents checked at both ends.
 *
 *   opcodes -t RC|UC|UD -p PORT          waits
 *   opcodes -t RC|UC|UD -p PORT HOST     connects, and posts the sends
 *
 * Both walk through the same list of steps, with a byte over TCP between them. */
#include "common.h"
#include <getopt.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#define LEN 65536
#define GRH 40
#define INLINE 128

struct side {
	uint32_t qpn, psn, rkey, window;
	uint64_t addr;
	union ibv_gid gid;
};

static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_qp *qp;
static struct ibv_mr *mr;
static struct ibv_ah *ah;
static unsigned char *buf;
static struct side me, peer;
static int tcp, client, ud;
static const char *step;

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", step, what);
	exit(1);
}

static void both(void *out, void *in, size_t len)
{
	if (write(tcp, out, len) != (ssize_t)len || recv(tcp, in, len, MSG_WAITALL) != (ssize_t)len)
		fail("the other side is gone");
}

static void sync_up(void)
{
	char a = 1, b;
	both(&a, &b, 1);
}

static void begin(const char *name)
{
	step = name;
	memset(buf, client ? 'c' : 's', LEN);
	sync_up();
}

static void end(void)
{
	sync_up();
	printf("ok %s\n", step);
	fflush(stdout);
}

static void fill(unsigned char *p, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (unsigned char)((i * 7 + seed) ^ (i >> 8));
}

static void check(const unsigned char *p, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != (unsigned char)((i * 7 + seed) ^ (i >> 8))) {
			fprintf(stderr, "%s: byte %zu is wrong\n", step, i);
			exit(1);
		}
}

static void untouched(size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		if (buf[i] != (client ? 'c' : 's')) {
			fprintf(stderr, "%s: byte %zu was written\n", step, i);
			exit(1);
		}
}

static struct ibv_sge piece(size_t at, uint32_t len)
{
	return (struct ibv_sge){ .addr = (uintptr_t)buf + at, .length = len, .lkey = mr->lkey };
}

static void post_recv(size_t at, uint32_t len)
{
	struct ibv_sge sge = piece(at, len + (ud ? GRH : 0));
	struct ibv_recv_wr wr = { .wr_id = 0x5151, .sg_list = &sge, .num_sge = 1 }, *bad;
	must_be_0(ibv_post_recv(qp, &wr, &bad), "post_recv");
}

static struct ibv_wc got(uint32_t len)
{
	struct ibv_wc wc = wait_wc(cq, step);
	if (wc.status != IBV_WC_SUCCESS)
		fail(ibv_wc_status_str(wc.status));
	if (!(wc.opcode & IBV_WC_RECV) || wc.wr_id != 0x5151)
		fail("another completion than the receive's");
	if (wc.byte_len != len + (ud ? GRH : 0))
		fail("wrong byte_len");
	if (ud && (!(wc.wc_flags & IBV_WC_GRH) || wc.src_qp != peer.qpn))
		fail("no GRH, or another sender");
	return wc;
}

static struct ibv_send_wr request(enum ibv_wr_opcode opcode, struct ibv_sge *sge, int n)
{
	struct ibv_send_wr wr = { .wr_id = 0xabcdef0123456789,
				  .sg_list = sge,
				  .num_sge = n,
				  .opcode = opcode,
				  .send_flags = IBV_SEND_SIGNALED };
	if (ud) {
		wr.wr.ud.ah = ah;
		wr.wr.ud.remote_qpn = peer.qpn;
		wr.wr.ud.remote_qkey = 0x1234;
	}
	return wr;
}

static void post(struct ibv_send_wr *wr)
{
	struct ibv_send_wr *bad;
	must_be_0(ibv_post_send(qp, wr, &bad), step);
}

static void sent(enum ibv_wc_opcode opcode)
{
	struct ibv_wc wc = wait_wc(cq, step);
	if (wc.status != IBV_WC_SUCCESS)
		fail(ibv_wc_status_str(wc.status));
	if (wc.wr_id != 0xabcdef0123456789 || wc.opcode != opcode || wc.qp_num != qp->qp_num)
		fail("another completion than the send's");
}

static void do_post(struct ibv_send_wr *wr, enum ibv_wc_opcode opcode)
{
	post(wr);
	sent(opcode);
}

/* SEND in its forms: to offset 0 of the server. */
static void sends(const char *name, uint32_t len, int flags, int imm, int gather)
{
	begin(name);
	uint32_t skip = ud ? GRH : 0;
	if (!client)
		post_recv(0, len + 16);
	sync_up();
	if (client) {
		fill(buf, len, 3);
		struct ibv_sge sge[3] = { piece(0, len) };
		int n = len ? 1 : 0;
		if (gather) {
			sge[0] = piece(0, 1);
			sge[1] = piece(1, len - 10);
			sge[2] = piece(len - 9, 9);
			n = 3;
		}
		struct ibv_send_wr wr = request(imm ? IBV_WR_SEND_WITH_IMM : IBV_WR_SEND, sge, n);
		wr.send_flags |= flags;
		wr.imm_data = htonl(0xfeed0001);
		post(&wr);
		if (flags & IBV_SEND_INLINE)
			memset(buf, 0, len); /* it was taken at once */
		sent(IBV_WC_SEND);
	} else {
		/* The receive was for 16 more than comes. */
		struct ibv_wc wc = wait_wc(cq, step);
		if (wc.status != IBV_WC_SUCCESS)
			fail(ibv_wc_status_str(wc.status));
		if (wc.opcode != IBV_WC_RECV || wc.byte_len != len + skip)
			fail("wrong opcode or byte_len");
		if (ud && (!(wc.wc_flags & IBV_WC_GRH) || wc.src_qp != peer.qpn))
			fail("no GRH, or another sender");
		if (!!(wc.wc_flags & IBV_WC_WITH_IMM) != imm || (imm && wc.imm_data != htonl(0xfeed0001)))
			fail("wrong immediate data");
		check(buf + skip, len, 3);
		untouched(skip + len, LEN);
	}
	end();
}

static void writes(const char *name, size_t at, uint32_t len, int flags, int imm)
{
	begin(name);
	if (!client && imm)
		post_recv(LEN - 64, 0);
	sync_up();
	if (client) {
		fill(buf, len, 5);
		struct ibv_sge sge = piece(0, len);
		struct ibv_send_wr wr =
			request(imm ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE, &sge, 1);
		wr.send_flags |= flags;
		wr.imm_data = htonl(77);
		wr.wr.rdma.remote_addr = peer.addr + at;
		wr.wr.rdma.rkey = peer.rkey;
		do_post(&wr, IBV_WC_RDMA_WRITE);
	} else if (imm) {
		struct ibv_wc wc = got(len);
		if (wc.opcode != IBV_WC_RECV_RDMA_WITH_IMM || wc.imm_data != htonl(77))
			fail("wrong opcode or immediate data");
	} else {
		/* Programs poll on the last byte. */
		unsigned char last = (unsigned char)(((len - 1) * 7 + 5) ^ ((len - 1) >> 8));
		volatile unsigned char *p = buf + at + len - 1;
		double until = now() + 10;
		while (*p != last)
			if (now() > until)
				fail("the last byte never came");
	}
	if (!client) {
		__sync_synchronize();
		check(buf + at, len, 5);
		untouched(0, at);
		untouched(at + len, LEN);
	}
	end();
}

static void reads(const char *name, int scatter)
{
	begin(name);
	if (!client)
		fill(buf, 30000, 9);
	sync_up();
	if (client) {
		struct ibv_sge sge[2] = { piece(0, 30000) };
		if (scatter) {
			sge[0] = piece(0, 11);
			sge[1] = piece(11, 30000 - 11);
		}
		struct ibv_send_wr wr = request(IBV_WR_RDMA_READ, sge, scatter ? 2 : 1);
		wr.wr.rdma.remote_addr = peer.addr;
		wr.wr.rdma.rkey = peer.rkey;
		do_post(&wr, IBV_WC_RDMA_READ);
		check(buf, 30000, 9);
		untouched(30000, LEN);
	}
	end();
}

static void atomics(const char *name, enum ibv_wr_opcode opcode, uint64_t compare, uint64_t swap,
		    uint64_t after)
{
	begin(name);
	const uint64_t before = 1000;
	memcpy(buf, &before, 8);
	sync_up();
	if (client) {
		memset(buf, 0, 8);
		struct ibv_sge sge = piece(0, 8);
		struct ibv_send_wr wr = request(opcode, &sge, 1);
		wr.wr.atomic.remote_addr = peer.addr;
		wr.wr.atomic.rkey = peer.rkey;
		wr.wr.atomic.compare_add = compare;
		wr.wr.atomic.swap = swap;
		do_post(&wr, opcode == IBV_WR_ATOMIC_CMP_AND_SWP ? IBV_WC_COMP_SWAP : IBV_WC_FETCH_ADD);
		if (memcmp(buf, &before, 8))
			fail("the old value is wrong");
	}
	sync_up();
	if (!client && memcmp(buf, &after, 8))
		fail("the new value is wrong");
	end();
}

static void fenced(void)
{
	begin("fenced_read_then_send");
	if (!client) {
		fill(buf, 4096, 21);
		post_recv(8192, 4096);
	}
	sync_up();
	if (client) {
		struct ibv_sge in = piece(0, 4096), out = piece(0, 4096);
		struct ibv_send_wr read = request(IBV_WR_RDMA_READ, &in, 1);
		struct ibv_send_wr send = request(IBV_WR_SEND, &out, 1);
		read.wr.rdma.remote_addr = peer.addr;
		read.wr.rdma.rkey = peer.rkey;
		read.send_flags = 0;
		read.next = &send;
		send.send_flags |= IBV_SEND_FENCE;
		post(&read);
		sent(IBV_WC_SEND);
	} else {
		got(4096);
		check(buf + 8192, 4096, 21); /* what was read came back */
	}
	end();
}

/* The server binds a type-2 window, the client writes by it and invalidates it. */
static void window(void)
{
	begin("bind_window_and_send_inv");
	struct ibv_mw *mw = NULL;
	uint32_t key = 0, theirs;
	if (!client) {
		mw = ibv_alloc_mw(pd, IBV_MW_TYPE_2);
		MUST(mw, "alloc_mw");
		key = ibv_inc_rkey(mw->rkey);
		struct ibv_send_wr wr = request(IBV_WR_BIND_MW, NULL, 0);
		wr.bind_mw.mw = mw;
		wr.bind_mw.rkey = key;
		wr.bind_mw.bind_info.mr = mr;
		wr.bind_mw.bind_info.addr = (uintptr_t)buf + 4096;
		wr.bind_mw.bind_info.length = 4096;
		wr.bind_mw.bind_info.mw_access_flags = IBV_ACCESS_REMOTE_WRITE;
		do_post(&wr, IBV_WC_BIND_MW);
		post_recv(0, 64);
	}
	both(&key, &theirs, 4);
	if (client) {
		fill(buf, 4096, 31);
		struct ibv_sge sge = piece(0, 4096), none = piece(0, 1);
		struct ibv_send_wr wr = request(IBV_WR_RDMA_WRITE, &sge, 1);
		wr.wr.rdma.remote_addr = peer.addr + 4096;
		wr.wr.rdma.rkey = theirs;
		do_post(&wr, IBV_WC_RDMA_WRITE);
		wr = request(IBV_WR_SEND_WITH_INV, &none, 1);
		wr.invalidate_rkey = theirs;
		do_post(&wr, IBV_WC_SEND);
	} else {
		struct ibv_wc wc = got(1);
		if (!(wc.wc_flags & IBV_WC_WITH_INV) || wc.invalidated_rkey != key)
			fail("the invalidated key is not told");
		check(buf + 4096, 4096, 31);
		must_be_0(ibv_dealloc_mw(mw), "dealloc_mw");
	}
	end();
}

static void unsignalled(void)
{
	begin("unsignalled_in_order");
	if (!client)
		for (int i = 0; i < 32; i++)
			post_recv((size_t)i * 64, 64);
	sync_up();
	if (client) {
		for (int i = 0; i < 32; i++) {
			buf[i] = (unsigned char)(100 + i);
			struct ibv_sge sge = piece((size_t)i, 1);
			struct ibv_send_wr wr = request(IBV_WR_SEND, &sge, 1);
			wr.send_flags = i == 31 ? IBV_SEND_SIGNALED : 0;
			post(&wr);
		}
		sent(IBV_WC_SEND);
		struct ibv_wc wc;
		if (ibv_poll_cq(cq, 1, &wc))
			fail("an unsignalled send completed");
	} else {
		for (int i = 0; i < 32; i++) {
			got(1);
			if (buf[i * 64] != 100 + i)
				fail("out of order");
		}
	}
	end();
}

static void meet(const char *host, int port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	if (host) {
		inet_pton(AF_INET, host, &addr.sin_addr);
		must_be_0(connect(fd, (void *)&addr, sizeof addr), "connect");
		tcp = fd;
	} else {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
		must_be_0(bind(fd, (void *)&addr, sizeof addr), "bind");
		must_be_0(listen(fd, 1), "listen");
		tcp = accept(fd, NULL, NULL);
		MUST(tcp >= 0, "accept");
		close(fd);
	}
	setsockopt(tcp, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

int main(int argc, char **argv)
{
	const char *type_name = "RC";
	int port = 18515, option;
	while ((option = getopt(argc, argv, "t:p:")) != -1) {
		if (option == 't')
			type_name = optarg;
		else
			port = atoi(optarg);
	}
	const char *host = argv[optind];
	client = host != NULL;
	ud = !strcmp(type_name, "UD");
	int rc = !strcmp(type_name, "RC");
	alarm(50);
	step = "set-up";

	struct ibv_context *ctx = open_device();
	pd = ibv_alloc_pd(ctx);
	cq = ibv_create_cq(ctx, 256, NULL, NULL, 0);
	MUST(pd && cq, "alloc");
	qp = make_qp(pd, cq, ud ? IBV_QPT_UD : rc ? IBV_QPT_RC : IBV_QPT_UC, INLINE);
	MUST(qp, "create_qp");
	buf = aligned_alloc(4096, LEN);
	mr = ibv_reg_mr(pd, buf, LEN,
			IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
				IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND);
	MUST(mr, "reg_mr");
	me = (struct side){
		.qpn = qp->qp_num, .psn = 99, .rkey = mr->rkey, .addr = (uintptr_t)buf };
	must_be_0(ibv_query_gid(ctx, PORT, GID_INDEX, &me.gid), "query_gid");
	meet(host, port);
	both(&me, &peer, sizeof me);
	must_be_0(to_init(qp), "INIT");
	must_be_0(to_rtr(qp, &peer.gid, peer.qpn, peer.psn), "RTR");
	must_be_0(to_rts(qp, me.psn), "RTS");
	if (ud) {
		struct ibv_ah_attr attr = path(&peer.gid);
		ah = ibv_create_ah(pd, &attr);
		MUST(ah, "create_ah");
	}

	uint32_t len = ud ? 1000 : 20000;
	sends("send", len, 0, 0, 0);
	sends("send_imm", len, 0, 1, 0);
	sends("send_inline", INLINE, IBV_SEND_INLINE, 0, 0);
	sends("send_gather", len, 0, 0, 1);
	if (ud)
		return 0;
	sends("send_empty", 0, 0, 0, 0);
	writes("write", 0, 50000, 0, 0);
	writes("write_imm", 0, 50000, 0, 1);
	writes("write_inline", 0, 100, IBV_SEND_INLINE, 0);
	writes("write_unaligned", 4095, 4099, 0, 0);
	unsignalled();
	if (!rc)
		return 0;
	reads("read", 0);
	reads("read_scatter", 1);
	atomics("cas_equal", IBV_WR_ATOMIC_CMP_AND_SWP, 1000, 5, 5);
	atomics("cas_different", IBV_WR_ATOMIC_CMP_AND_SWP, 999, 5, 1000);
	atomics("fadd", IBV_WR_ATOMIC_FETCH_AND_ADD, 42, 0, 1042);
	fenced();
	window();
	return 0;
}
