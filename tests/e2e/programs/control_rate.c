/* How fast control verbs are: the median of one, and whole connections. */
#include "common.h"

#define VERBS 20000
#define CONNECTIONS 2000

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

int main(void)
{
	alarm(50);
	struct ibv_context *ctx = open_device();
	struct ibv_pd *pd = ibv_alloc_pd(ctx);
	struct ibv_cq *cq = ibv_create_cq(ctx, 16, NULL, NULL, 0);
	MUST(pd && cq, "alloc");
	struct ibv_qp *qp = make_qp(pd, cq, IBV_QPT_RC, 0);
	MUST(qp, "create_qp");
	must_be_0(to_init(qp), "INIT");

	static double took[VERBS];
	for (int i = 0; i < VERBS; i++) {
		struct ibv_qp_attr attr = { .qp_access_flags = IBV_ACCESS_REMOTE_WRITE };
		double since = now();
		must_be_0(ibv_modify_qp(qp, &attr, IBV_QP_ACCESS_FLAGS), "modify_qp");
		took[i] = now() - since;
	}
	qsort(took, VERBS, sizeof took[0], by_value);
	printf("verb_median_us %.3f\n", took[VERBS / 2] * 1e6);
	printf("verb_p99_us %.3f\n", took[VERBS / 100 * 99] * 1e6);

	union ibv_gid self;
	must_be_0(ibv_query_gid(ctx, PORT, GID_INDEX, &self), "query_gid");
	double since = now();
	for (int i = 0; i < CONNECTIONS; i++) {
		struct ibv_cq *one = ibv_create_cq(ctx, 16, NULL, NULL, 0);
		MUST(one, "create_cq");
		struct ibv_qp *made = make_qp(pd, one, IBV_QPT_RC, 0);
		MUST(made, "create_qp");
		must_be_0(to_init(made), "INIT");
		must_be_0(to_rtr(made, &self, qp->qp_num, 1), "RTR");
		must_be_0(to_rts(made, 1), "RTS");
	}
	printf("connections_per_second %.0f\n", CONNECTIONS / (now() - since));
	_exit(fflush(stdout) != 0);
}
