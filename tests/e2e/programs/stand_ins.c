/* Memory that cannot be shared with the device: small buffers in the heap and on stacks.
 * Contents are checked right after the completion, and so is what lies beside the buffers. */
#define _GNU_SOURCE
#include "loop.h"
#include <sys/wait.h>

#define ROOM 256
#define BESIDE 0x5a

/* A buffer in the middle of other data. */
struct small {
	unsigned char *all, *at;
	unsigned len;
	struct ibv_mr *mr;
};

static struct ibv_pd *pd;

static struct small on(unsigned char *all, unsigned skip, unsigned len, int access)
{
	memset(all, BESIDE, ROOM);
	struct small small = { all, all + skip, len, ibv_reg_mr(pd, all + skip, len, access) };
	MUST(small.mr, "reg_mr");
	return small;
}

static struct small heap(unsigned skip, unsigned len, int access)
{
	return on(malloc(ROOM), skip, len, access);
}

static void end(struct small small)
{
	EXPECT(!ibv_dereg_mr(small.mr));
	free(small.all);
}

static void fill(struct small to, unsigned seed)
{
	for (unsigned i = 0; i < to.len; i++)
		to.at[i] = (unsigned char)(seed + i * 7);
}

/* The first `count` bytes are those of `seed`, the rest is `rest`; nothing else has changed. */
static void check(struct small in, unsigned seed, unsigned count, unsigned char rest, const char *what)
{
	for (unsigned i = 0; i < ROOM; i++) {
		unsigned at = i - (unsigned)(in.at - in.all);
		unsigned char expected = at >= in.len ? BESIDE
					 : at < count ? (unsigned char)(seed + at * 7)
						      : rest;
		if (in.all[i] != expected) {
			fprintf(stderr, "%s: byte %u is %u, not %u\n", what, at, in.all[i], expected);
			exit(1);
		}
	}
}

static struct ibv_sge sge_of(struct small small)
{
	return (struct ibv_sge){ (uintptr_t)small.at, small.len, small.mr->lkey };
}

static void receive_in(struct ibv_qp *qp, struct ibv_srq *srq, struct small in, uint64_t wr_id)
{
	struct ibv_sge sge = sge_of(in);
	struct ibv_recv_wr wr = { .wr_id = wr_id, .sg_list = &sge, .num_sge = 1 }, *bad;
	EXPECT(!(srq ? ibv_post_srq_recv(srq, &wr, &bad) : ibv_post_recv(qp, &wr, &bad)));
}

static void send_from(struct ibv_qp *qp, struct small from, unsigned len, unsigned flags)
{
	struct ibv_sge sge = sge_of(from);
	sge.length = len;
	struct ibv_send_wr wr = { .wr_id = 1000,
				  .sg_list = &sge,
				  .num_sge = 1,
				  .opcode = IBV_WR_SEND,
				  .send_flags = flags },
			   *bad;
	EXPECT(!ibv_post_send(qp, &wr, &bad));
}

/* Takes two good completions: a send's and a receive's. */
static struct ibv_wc both(struct ibv_cq *cq)
{
	struct ibv_wc one = good_wc(cq), other = good_wc(cq);
	EXPECT((one.opcode & IBV_WC_RECV) != (other.opcode & IBV_WC_RECV));
	return one.opcode & IBV_WC_RECV ? one : other;
}

static void sends_and_receives(struct ibv_qp *qp, struct ibv_cq *cq)
{
	unsigned char stack[ROOM];
	struct small from = heap(33, 100, 0), to = heap(7, 120, IBV_ACCESS_LOCAL_WRITE);
	struct small below = on(stack, 11, 120, IBV_ACCESS_LOCAL_WRITE);
	for (unsigned turn = 0; turn < 500; turn++) {
		struct small in = turn % 2 ? to : below;
		unsigned len = 1 + turn % from.len;
		fill(from, turn);
		memset(in.at, 0xee, in.len);
		receive_in(qp, NULL, in, turn);
		send_from(qp, from, len, IBV_SEND_SIGNALED | (turn % 3 || len > 64 ? 0 : IBV_SEND_INLINE));
		EXPECT(both(cq).byte_len == len);
		check(in, turn, len, 0xee, "receive");
	}
	EXPECT(!ibv_dereg_mr(below.mr));
	end(from);
	end(to);
}

static void a_message_in_several_places(struct ibv_qp *qp, struct ibv_cq *cq)
{
	/* A partial page, whole pages, a partial page; then a small one. */
	const unsigned len = 2 * 4096 + 100;
	unsigned char *pages = aligned_alloc(4096, 1 << 16), *from = aligned_alloc(4096, 1 << 16);
	struct ibv_mr *source = ibv_reg_mr(pd, from, 1 << 16, 0);
	struct ibv_mr *mr = ibv_reg_mr(pd, pages + 4000, len, IBV_ACCESS_LOCAL_WRITE);
	struct small last = heap(1, 50, IBV_ACCESS_LOCAL_WRITE);
	EXPECT(source && mr);
	for (unsigned turn = 0; turn < 20; turn++) {
		for (unsigned i = 0; i < 1 << 16; i++)
			from[i] = (unsigned char)(turn + i * 3);
		memset(pages, BESIDE, 1 << 16);
		memset(last.at, 0xee, last.len);
		struct ibv_sge list[2] = { { (uintptr_t)mr->addr, len, mr->lkey }, sge_of(last) };
		struct ibv_recv_wr wr = { .sg_list = list, .num_sge = 2 }, *bad;
		EXPECT(!ibv_post_recv(qp, &wr, &bad));
		struct ibv_sge all = { (uintptr_t)from, len + 20, source->lkey };
		struct ibv_send_wr send = { .sg_list = &all,
					    .num_sge = 1,
					    .opcode = IBV_WR_SEND,
					    .send_flags = IBV_SEND_SIGNALED },
				   *worse;
		EXPECT(!ibv_post_send(qp, &send, &worse));
		EXPECT(both(cq).byte_len == len + 20);
		for (unsigned i = 0; i < 1 << 16; i++) {
			unsigned at = i - 4000;
			unsigned char expected = at < len ? (unsigned char)(turn + at * 3) : BESIDE;
			EXPECT(pages[i] == expected);
		}
		for (unsigned i = 0; i < last.len; i++)
			EXPECT(last.at[i] == (i < 20 ? (unsigned char)(turn + (len + i) * 3) : 0xee));
	}
	EXPECT(!ibv_dereg_mr(source) && !ibv_dereg_mr(mr));
	end(last);
	free(pages);
	free(from);
}

static int request(struct ibv_qp *qp, enum ibv_wr_opcode opcode, struct small local, uint64_t remote,
		   uint32_t rkey, unsigned flags)
{
	struct ibv_sge sge = sge_of(local);
	struct ibv_send_wr wr = {
		.sg_list = &sge, .num_sge = 1, .opcode = opcode, .send_flags = flags
	}, *bad;
	if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
		wr.wr.atomic.remote_addr = remote;
		wr.wr.atomic.rkey = rkey;
		wr.wr.atomic.compare_add = 5;
	} else {
		wr.wr.rdma.remote_addr = remote;
		wr.wr.rdma.rkey = rkey;
	}
	return ibv_post_send(qp, &wr, &bad);
}

static void reads_and_atomics(struct ibv_qp *qp, struct ibv_cq *cq)
{
	uint64_t *far = aligned_alloc(4096, 4096);
	int access = ALL_ACCESS | IBV_ACCESS_REMOTE_ATOMIC;
	struct ibv_mr *mr = ibv_reg_mr(pd, far, 4096, access);
	EXPECT(mr);
	unsigned char stack[ROOM];
	struct small near = heap(21, 77, IBV_ACCESS_LOCAL_WRITE), other = heap(5, 9, IBV_ACCESS_LOCAL_WRITE);
	struct small word = on(stack, 24, 8, IBV_ACCESS_LOCAL_WRITE);
	struct small source = { (unsigned char *)far, (unsigned char *)far, 200, mr };
	for (unsigned turn = 0; turn < 200; turn++) {
		fill(source, turn);
		memset(near.at, 0, near.len);
		memset(other.at, 0, other.len);
		/* Unsignalled ones are done when a later one is. */
		EXPECT(!request(qp, IBV_WR_RDMA_READ, near, (uintptr_t)far, mr->rkey, 0));
		EXPECT(!request(qp, IBV_WR_RDMA_READ, other, (uintptr_t)far, mr->rkey, 0));
		if (turn % 2)
			EXPECT(!request(qp, IBV_WR_RDMA_WRITE, near, (uintptr_t)(far + 100), mr->rkey,
					IBV_SEND_SIGNALED | IBV_SEND_FENCE));
		else
			EXPECT(!request(qp, IBV_WR_RDMA_READ, other, (uintptr_t)far, mr->rkey,
					IBV_SEND_SIGNALED));
		good_wc(cq);
		/* What was fenced has passed on what was read. */
		EXPECT(turn % 2 == 0 || !memcmp(far + 100, far, near.len));
		check(near, turn, near.len, 0, "READ");
		check(other, turn, other.len, 0, "READ");
		far[50] = turn;
		EXPECT(!request(qp, IBV_WR_ATOMIC_FETCH_AND_ADD, word, (uintptr_t)(far + 50), mr->rkey,
				IBV_SEND_SIGNALED));
		good_wc(cq);
		uint64_t before;
		memcpy(&before, word.at, 8);
		EXPECT(before == turn && far[50] == turn + 5);
	}
	EXPECT(!ibv_dereg_mr(mr) && !ibv_dereg_mr(word.mr));
	end(near);
	end(other);
	free(far);
}

static void writes_read_small_memory(struct ibv_qp *qp, struct ibv_cq *cq)
{
	unsigned char *far = aligned_alloc(4096, 4096);
	struct ibv_mr *mr = ibv_reg_mr(pd, far, 4096, ALL_ACCESS);
	struct small near = heap(21, 77, 0);
	for (unsigned turn = 0; turn < 200; turn++) {
		fill(near, turn);
		EXPECT(!request(qp, IBV_WR_RDMA_WRITE, near, (uintptr_t)far, mr->rkey, IBV_SEND_SIGNALED));
		good_wc(cq);
		EXPECT(!memcmp(far, near.at, near.len));
	}
	EXPECT(!ibv_dereg_mr(mr));
	end(near);
	free(far);
}

/* What fails writes nothing, a reset queue pair begins anew. */
static void failures(struct ibv_qp *qp, struct ibv_cq *cq)
{
	struct small from = heap(3, 40, 0), to = heap(9, 40, IBV_ACCESS_LOCAL_WRITE);
	memset(to.at, 0xee, to.len);
	for (int turn = 0; turn < 3; turn++) {
		for (unsigned i = 0; i < 5; i++)
			receive_in(qp, NULL, to, i);
		EXPECT(!request(qp, IBV_WR_RDMA_READ, to, (uintptr_t)from.at, 0x1234, IBV_SEND_SIGNALED));
		EXPECT(!request(qp, IBV_WR_RDMA_READ, to, (uintptr_t)from.at, 0x1234, 0));
		for (int i = 0; i < 7; i++)
			EXPECT(wait_wc(cq, "failure").status != IBV_WC_SUCCESS);
		check(to, 0, 0, 0xee, "failure");
		receive_in(qp, NULL, to, 7); /* forgotten by the reset */
		struct ibv_qp_attr reset = { .qp_state = IBV_QPS_RESET };
		EXPECT(!ibv_modify_qp(qp, &reset, IBV_QP_STATE));
		connect_to(qp, qp->qp_num);
		receive_in(qp, NULL, to, 8);
		fill(from, turn);
		send_from(qp, from, 40, IBV_SEND_SIGNALED);
		EXPECT(both(cq).wr_id == 8);
		check(to, (unsigned)turn, 40, 0, "after a reset");
		memset(to.at, 0xee, to.len);
	}
	end(from);
	end(to);
}

static void a_shared_queue(struct ibv_cq *cq)
{
	enum { QPS = 4, EACH = 8 };
	struct ibv_srq_init_attr attr = { .attr = { .max_wr = QPS * EACH, .max_sge = 2 } };
	struct ibv_srq *srq = ibv_create_srq(pd, &attr);
	EXPECT(srq);
	struct ibv_qp *qps[QPS];
	for (int i = 0; i < QPS; i++) {
		struct ibv_qp_init_attr init = { .send_cq = cq,
						 .recv_cq = cq,
						 .srq = srq,
						 .qp_type = IBV_QPT_RC,
						 .cap = { .max_send_wr = EACH, .max_send_sge = 1 } };
		EXPECT((qps[i] = ibv_create_qp(pd, &init)));
		connect_to(qps[i], qps[i]->qp_num);
	}
	struct small from = heap(3, 60, 0), to[QPS * EACH];
	for (int i = 0; i < QPS * EACH; i++)
		to[i] = heap(1 + (unsigned)i, 60, IBV_ACCESS_LOCAL_WRITE);
	for (unsigned turn = 0; turn < 20; turn++) {
		fill(from, turn);
		for (unsigned i = 0; i < QPS * EACH; i++) {
			memset(to[i].at, 0xee, to[i].len);
			receive_in(NULL, srq, to[i], i);
		}
		for (unsigned i = 0; i < QPS * EACH; i++)
			send_from(qps[i % QPS], from, 60 - i, IBV_SEND_SIGNALED);
		for (unsigned i = 0; i < 2 * QPS * EACH; i++) {
			struct ibv_wc wc = good_wc(cq);
			if (wc.opcode & IBV_WC_RECV)
				check(to[wc.wr_id], turn, wc.byte_len, 0xee, "shared receive");
		}
	}
	for (int i = 0; i < QPS; i++)
		EXPECT(!ibv_destroy_qp(qps[i]));
	EXPECT(!ibv_destroy_srq(srq));
	for (int i = 0; i < QPS * EACH; i++)
		end(to[i]);
	end(from);
}

static void extended_queues(struct ibv_context *ctx)
{
	struct ibv_cq_init_attr_ex attr = { .cqe = 16, .wc_flags = IBV_WC_STANDARD_FLAGS };
	struct ibv_cq_ex *cq = ibv_create_cq_ex(ctx, &attr);
	EXPECT(cq);
	struct ibv_qp_init_attr_ex init = {
		.send_cq = ibv_cq_ex_to_cq(cq),
		.recv_cq = ibv_cq_ex_to_cq(cq),
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = 8, .max_recv_wr = 8, .max_send_sge = 2, .max_recv_sge = 2 },
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.pd = pd,
		.send_ops_flags = IBV_QP_EX_WITH_SEND,
	};
	struct ibv_qp *qp = ibv_create_qp_ex(ctx, &init);
	EXPECT(qp);
	struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(qp);
	connect_to(qp, qp->qp_num);
	struct small from = heap(3, 60, 0), next = heap(30, 60, 0);
	struct small to[2] = { heap(9, 60, IBV_ACCESS_LOCAL_WRITE), heap(90, 60, IBV_ACCESS_LOCAL_WRITE) };
	for (unsigned turn = 0; turn < 200; turn++) {
		fill(from, turn);
		fill(next, turn + 1);
		for (unsigned i = 0; i < 2; i++) {
			memset(to[i].at, 0xee, to[i].len);
			receive_in(qp, NULL, to[i], i);
		}
		ibv_wr_start(ex);
		for (unsigned i = 0; i < 2; i++) {
			struct small part = i ? next : from;
			ex->wr_id = 1000;
			ex->wr_flags = IBV_SEND_SIGNALED;
			ibv_wr_send(ex);
			ibv_wr_set_sge(ex, part.mr->lkey, (uintptr_t)part.at, 50);
		}
		EXPECT(!ibv_wr_complete(ex));
		for (unsigned seen = 0; seen < 4;) {
			struct ibv_poll_cq_attr none = { 0 };
			if (ibv_start_poll(cq, &none))
				continue;
			do {
				EXPECT(cq->status == IBV_WC_SUCCESS);
				if (ibv_wc_read_opcode(cq) & IBV_WC_RECV)
					check(to[cq->wr_id], turn + (unsigned)cq->wr_id, 50, 0xee, "extended");
				seen++;
			} while (!ibv_next_poll(cq));
			ibv_end_poll(cq);
		}
	}
	EXPECT(!ibv_destroy_qp(qp) && !ibv_destroy_cq(ibv_cq_ex_to_cq(cq)));
	end(from);
	end(next);
	end(to[0]);
	end(to[1]);
}

static void datagrams(struct ibv_cq *cq)
{
	struct ibv_qp *qp = make_qp(pd, cq, IBV_QPT_UD, 0);
	union ibv_gid gid;
	EXPECT(qp && !ibv_query_gid(qp->context, PORT, GID_INDEX, &gid));
	EXPECT(!to_init(qp) && !to_rtr(qp, NULL, 0, 0) && !to_rts(qp, 0));
	struct ibv_ah_attr attr = path(&gid);
	struct ibv_ah *ah = ibv_create_ah(pd, &attr);
	EXPECT(ah);
	struct small from = heap(3, 60, 0), to = heap(9, 140, IBV_ACCESS_LOCAL_WRITE);
	for (unsigned turn = 0; turn < 100; turn++) {
		fill(from, turn);
		memset(to.at, 0xee, to.len);
		receive_in(qp, NULL, to, 0);
		struct ibv_sge sge = sge_of(from);
		struct ibv_send_wr wr = { .sg_list = &sge,
					  .num_sge = 1,
					  .opcode = IBV_WR_SEND,
					  .send_flags = IBV_SEND_SIGNALED },
				   *bad;
		wr.wr.ud.ah = ah;
		wr.wr.ud.remote_qpn = qp->qp_num;
		wr.wr.ud.remote_qkey = 0x1234;
		EXPECT(!ibv_post_send(qp, &wr, &bad));
		EXPECT(both(cq).byte_len == 40 + 60);
		EXPECT(!memcmp(to.at + 40, from.at, 60) && to.at[100] == 0xee && to.at[139] == 0xee);
		EXPECT(!memcmp(to.at + 24, gid.raw + 12, 0) && to.at[20] == 0x45);
	}
	EXPECT(!ibv_destroy_ah(ah) && !ibv_destroy_qp(qp));
	end(from);
	end(to);
}

static void forked(struct ibv_qp *qp, struct ibv_cq *cq)
{
	struct small from = heap(3, 60, 0), to = heap(9, 60, IBV_ACCESS_LOCAL_WRITE);
	memset(to.at, 0xee, to.len);
	receive_in(qp, NULL, to, 0);
	fill(from, 1);
	send_from(qp, from, 60, IBV_SEND_SIGNALED);
	pid_t child = fork();
	EXPECT(child >= 0);
	if (!child) {
		/* Memory as it was, whatever happens in the parent; objects are freed, no more. */
		sleep(1);
		check(to, 0, 0, 0xee, "child");
		memset(to.at, 1, to.len);
		ibv_dereg_mr(to.mr);
		check(to, 0, 0, 1, "child after the end of the region");
		_exit(0);
	}
	both(cq);
	check(to, 1, 60, 0, "parent");
	for (unsigned turn = 0; turn < 100; turn++) {
		fill(from, turn);
		receive_in(qp, NULL, to, 0);
		send_from(qp, from, 60, IBV_SEND_SIGNALED);
		both(cq);
		check(to, turn, 60, 0, "parent");
	}
	int status;
	EXPECT(waitpid(child, &status, 0) == child && status == 0);
	end(from);
	end(to);
}

/* Regions come and go, with receives still posted, and are changed. */
static void regions_end(struct ibv_qp *qp, struct ibv_cq *cq)
{
	for (unsigned turn = 0; turn < 3000; turn++) {
		struct small to = heap(1 + turn % 99, 60, IBV_ACCESS_LOCAL_WRITE);
		end(to);
	}
	struct ibv_qp *short_lived = loop(pd, cq, 8);
	struct small lost = heap(5, 60, IBV_ACCESS_LOCAL_WRITE);
	receive_in(short_lived, NULL, lost, 0);
	EXPECT(!ibv_destroy_qp(short_lived));
	end(lost);

	struct small from = heap(3, 60, 0), to = heap(9, 60, IBV_ACCESS_LOCAL_WRITE);
	struct small after = { calloc(1, ROOM), NULL, 60, to.mr };
	after.at = after.all + 100;
	memset(after.all, BESIDE, ROOM);
	EXPECT(!ibv_rereg_mr(to.mr, IBV_REREG_MR_CHANGE_TRANSLATION, NULL, after.at, after.len, 0));
	fill(from, 5);
	receive_in(qp, NULL, after, 0);
	send_from(qp, from, 60, IBV_SEND_SIGNALED);
	both(cq);
	check(after, 5, 60, 0, "another translation");
	EXPECT(!ibv_rereg_mr(after.mr, IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, ALL_ACCESS));
	fill(from, 6);
	EXPECT(!request(qp, IBV_WR_RDMA_WRITE, from, (uintptr_t)after.at, after.mr->rkey,
			IBV_SEND_SIGNALED));
	good_wc(cq);
	check(after, 6, 60, 0, "other rights");
	end(after);
	free(to.all);
	end(from);
}

/* Peers write and read it by their own requests. */
static void named_by_peers(struct ibv_qp *qp, struct ibv_cq *cq)
{
	int access = ALL_ACCESS | IBV_ACCESS_REMOTE_ATOMIC;
	struct small from = heap(3, 60, 0), to = heap(9, 60, access), back = heap(1, 60, 1);
	struct small count = heap(24, 8, access), word = heap(8, 8, IBV_ACCESS_LOCAL_WRITE);
	for (unsigned turn = 0; turn < 300; turn++) {
		fill(from, turn);
		EXPECT(!request(qp, IBV_WR_RDMA_WRITE, from, (uintptr_t)to.at, to.mr->rkey,
				IBV_SEND_SIGNALED));
		good_wc(cq);
		check(to, turn, 60, 0, "a peer's WRITE");
		/* The program's own bytes are what a peer finds. */
		fill(to, turn + 100);
		EXPECT(!request(qp, IBV_WR_RDMA_READ, back, (uintptr_t)to.at, to.mr->rkey,
				IBV_SEND_SIGNALED));
		good_wc(cq);
		check(back, turn + 100, 60, 0, "a peer's READ");
		/* Its buffer is cleared without a word, and gets what it held before. */
		memset(to.at, 0xee, to.len);
		receive_in(qp, NULL, to, 0);
		fill(from, turn + 100);
		send_from(qp, from, 60, IBV_SEND_SIGNALED);
		both(cq);
		check(to, turn + 100, 60, 0, "a receive where peers write too");

		uint64_t value = turn * 251, found;
		memcpy(count.at, &value, 8);
		EXPECT(!request(qp, IBV_WR_ATOMIC_FETCH_AND_ADD, word, (uintptr_t)count.at,
				count.mr->rkey, IBV_SEND_SIGNALED));
		good_wc(cq);
		memcpy(&found, word.at, 8);
		EXPECT(found == value);
		memcpy(&found, count.at, 8);
		EXPECT(found == value + 5);
	}
	end(from);
	end(to);
	end(back);
	end(count);
	end(word);
}

/* Holds a small region that only this side names, and one that peers may. */
static void hold(void)
{
	heap(3, 60, IBV_ACCESS_LOCAL_WRITE);
	heap(3, 61, ALL_ACCESS);
	puts("held");
	fflush(stdout);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	struct ibv_context *ctx = open_device();
	EXPECT((pd = ibv_alloc_pd(ctx)));
	if (argc > 1 && !strcmp(argv[1], "hold"))
		hold();
	struct ibv_cq *cq = ibv_create_cq(ctx, 256, NULL, NULL, 0);
	EXPECT(cq);
	struct ibv_qp *qp = loop(pd, cq, 16);
	sends_and_receives(qp, cq);
	a_message_in_several_places(qp, cq);
	reads_and_atomics(qp, cq);
	writes_read_small_memory(qp, cq);
	a_shared_queue(cq);
	extended_queues(ctx);
	datagrams(cq);
	forked(qp, cq);
	regions_end(qp, cq);
	named_by_peers(qp, cq);
	failures(qp, cq);
	EXPECT(!ibv_destroy_qp(qp) && !ibv_destroy_cq(cq));
	EXPECT(!ibv_dealloc_pd(pd) && !ibv_close_device(ctx));
	return 0;
}
