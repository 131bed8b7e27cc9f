/* What each control verb takes, in microseconds: its median over many runs.
 * control_each [GID_INDEX]: without an index queue pairs are not connected. */
#include "common.h"

#define RUNS 300
#define SIZE 65536

enum verb {
	ALLOC_PD,
	REG_MR,
	CREATE_CQ,
	CREATE_QP,
	TO_INIT,
	TO_RTR,
	TO_RTS,
	DESTROY_QP,
	DESTROY_CQ,
	DEREG_MR,
	DEALLOC_PD,
	VERBS,
};

static const char *const names[VERBS] = {
	"alloc_pd", "reg_mr_64k", "create_cq", "create_qp", "modify_qp_init", "modify_qp_rtr",
	"modify_qp_rts", "destroy_qp", "destroy_cq", "dereg_mr", "dealloc_pd",
};

static double took[VERBS][RUNS];

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

#define TIMED(verb, run, call)               \
	do {                                     \
		double since = now();                \
		call;                                \
		took[verb][run] = now() - since;     \
	} while (0)

static void once(struct ibv_context *ctx, int run, void *memory, int gid_index)
{
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	struct ibv_cq *cq;
	struct ibv_qp *qp;

	TIMED(ALLOC_PD, run, pd = ibv_alloc_pd(ctx));
	MUST(pd, "alloc_pd");
	TIMED(REG_MR, run, mr = ibv_reg_mr(pd, memory, SIZE, IBV_ACCESS_LOCAL_WRITE));
	MUST(mr, "reg_mr");
	TIMED(CREATE_CQ, run, cq = ibv_create_cq(ctx, 64, NULL, NULL, 0));
	MUST(cq, "create_cq");
	TIMED(CREATE_QP, run, qp = make_qp(pd, cq, IBV_QPT_RC, 0));
	MUST(qp, "create_qp");
	TIMED(TO_INIT, run, must_be_0(to_init(qp), "INIT"));
	if (gid_index >= 0) {
		union ibv_gid self;
		must_be_0(ibv_query_gid(ctx, PORT, gid_index, &self), "query_gid");
		struct ibv_qp_attr a = { .qp_state = IBV_QPS_RTR,
					 .path_mtu = IBV_MTU_1024,
					 .dest_qp_num = qp->qp_num,
					 .rq_psn = 1,
					 .max_dest_rd_atomic = 1,
					 .min_rnr_timer = 12,
					 .ah_attr = path(&self) };
		a.ah_attr.grh.sgid_index = (uint8_t)gid_index;
		int mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
			   IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
		TIMED(TO_RTR, run, must_be_0(ibv_modify_qp(qp, &a, mask), "RTR"));
		TIMED(TO_RTS, run, must_be_0(to_rts(qp, 1), "RTS"));
	}
	TIMED(DESTROY_QP, run, must_be_0(ibv_destroy_qp(qp), "destroy_qp"));
	TIMED(DESTROY_CQ, run, must_be_0(ibv_destroy_cq(cq), "destroy_cq"));
	TIMED(DEREG_MR, run, must_be_0(ibv_dereg_mr(mr), "dereg_mr"));
	TIMED(DEALLOC_PD, run, must_be_0(ibv_dealloc_pd(pd), "dealloc_pd"));
}

int main(int argc, char **argv)
{
	alarm(50);
	int gid_index = argc > 1 ? atoi(argv[1]) : -1;
	struct ibv_context *ctx = open_device();
	void *memory = aligned_alloc(4096, SIZE);
	MUST(memory, "memory");
	memset(memory, 1, SIZE);
	for (int run = 0; run < RUNS; run++)
		once(ctx, run, memory, gid_index);
	for (int verb = 0; verb < VERBS; verb++) {
		if (gid_index < 0 && (verb == TO_RTR || verb == TO_RTS))
			continue;
		qsort(took[verb], RUNS, sizeof took[verb][0], by_value);
		printf("%s %.3f\n", names[verb], took[verb][RUNS / 2] * 1e6);
	}
	return fflush(stdout) != 0;
}
