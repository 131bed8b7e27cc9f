/* Tries what must be refused and prints one line about how it ended. */
#include "common.h"
#include <sys/mman.h>

static struct ibv_context *ctx;
static struct ibv_pd *pd;
static struct ibv_cq *cq;

static void rtr(const char *address)
{
	union ibv_gid gid;
	gid_of_ipv4(address, &gid);
	struct ibv_qp *qp = make_qp(pd, cq, IBV_QPT_RC, 0);
	MUST(qp, "create_qp");
	must_be_0(to_init(qp), "INIT");
	printf("errno %d\n", to_rtr(qp, &gid, 1, 0));
}

static void ah(const char *address)
{
	union ibv_gid gid;
	gid_of_ipv4(address, &gid);
	struct ibv_ah_attr attr = path(&gid);
	errno = 0;
	struct ibv_ah *handle = ibv_create_ah(pd, &attr);
	printf("errno %d\n", handle ? 0 : errno);
}

static void qps(int most)
{
	for (int made = 0; made < most; made++) {
		errno = 0;
		if (!make_qp(pd, cq, IBV_QPT_RC, 0)) {
			printf("made %d errno %d\n", made, errno);
			return;
		}
	}
	printf("made %d errno 0\n", most);
}

static void mr(size_t len)
{
	void *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	MUST(mem != MAP_FAILED, "mmap");
	errno = 0;
	struct ibv_mr *region = ibv_reg_mr(pd, mem, len, IBV_ACCESS_LOCAL_WRITE);
	printf("errno %d\n", region ? 0 : errno);
}

static void key(void)
{
	char *mem = aligned_alloc(4096, 4096);
	struct ibv_mr *region =
		ibv_reg_mr(pd, mem, 4096, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	MUST(region, "reg_mr");
	printf("rkey %08x\n", region->rkey);
}

/* Two queue pairs of this process; the first writes to the second, with a key
 * that must not open anything. */
static void forbidden_write(const char *how)
{
	struct ibv_pd *other = ibv_alloc_pd(ctx);
	struct ibv_cq *cq2 = ibv_create_cq(ctx, 16, NULL, NULL, 0);
	MUST(other && cq2, "alloc");
	struct ibv_qp *from = make_qp(pd, cq, IBV_QPT_RC, 0);
	struct ibv_qp *to = make_qp(pd, cq2, IBV_QPT_RC, 0);
	MUST(from && to, "create_qp");
	union ibv_gid self;
	must_be_0(ibv_query_gid(ctx, PORT, GID_INDEX, &self), "query_gid");
	must_be_0(to_init(from), "INIT");
	must_be_0(to_init(to), "INIT");
	must_be_0(to_rtr(from, &self, to->qp_num, 7), "RTR");
	must_be_0(to_rtr(to, &self, from->qp_num, 7), "RTR");
	must_be_0(to_rts(from, 7), "RTS");
	must_be_0(to_rts(to, 7), "RTS");

	char *source = aligned_alloc(4096, 4096);
	char *target = aligned_alloc(4096, 4096);
	memset(source, 'x', 4096);
	memset(target, '.', 4096);
	struct ibv_mr *out = ibv_reg_mr(pd, source, 4096, 0);
	int rights = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ;
	if (strcmp(how, "no-right") != 0)
		rights |= IBV_ACCESS_REMOTE_WRITE;
	struct ibv_mr *in =
		ibv_reg_mr(strcmp(how, "other-pd") == 0 ? other : pd, target, 4096, rights);
	MUST(out && in, "reg_mr");

	struct ibv_sge sge = { .addr = (uintptr_t)source, .length = 64, .lkey = out->lkey };
	struct ibv_send_wr wr = { .wr_id = 1,
				  .sg_list = &sge,
				  .num_sge = 1,
				  .opcode = IBV_WR_RDMA_WRITE,
				  .send_flags = IBV_SEND_SIGNALED };
	wr.wr.rdma.remote_addr = (uintptr_t)target;
	wr.wr.rdma.rkey = strcmp(how, "guess") == 0 ? in->rkey ^ 0x00010000 : in->rkey;
	struct ibv_send_wr *bad;
	must_be_0(ibv_post_send(from, &wr, &bad), "post_send");
	struct ibv_wc wc = wait_wc(cq, "write");
	struct ibv_async_event event;
	must_be_0(ibv_get_async_event(ctx, &event), "async event");
	ibv_ack_async_event(&event);
	int intact = 1;
	for (int i = 0; i < 4096; i++)
		intact &= target[i] == '.';
	printf("status %d event %d %s\n", wc.status, event.event_type, intact ? "intact" : "WRITTEN");
}

int main(int argc, char **argv)
{
	MUST(argc > 1, "usage");
	alarm(30);
	ctx = open_device();
	pd = ibv_alloc_pd(ctx);
	cq = ibv_create_cq(ctx, 16, NULL, NULL, 0);
	MUST(pd && cq, "alloc");
	const char *what = argv[1];
	if (!strcmp(what, "key"))
		key();
	else if (!strcmp(what, "rtr") && argc > 2)
		rtr(argv[2]);
	else if (!strcmp(what, "ah") && argc > 2)
		ah(argv[2]);
	else if (!strcmp(what, "qps") && argc > 2)
		qps(atoi(argv[2]));
	else if (!strcmp(what, "mr") && argc > 2)
		mr(strtoull(argv[2], NULL, 0));
	else
		forbidden_write(what);
	return 0;
}
