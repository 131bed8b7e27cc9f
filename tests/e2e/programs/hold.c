/* Holds sessions or queue pairs until it is killed. */
#include "common.h"

int main(int argc, char **argv)
{
	MUST(argc == 3, "usage: hold sessions|qps COUNT");
	int count = atoi(argv[2]);
	struct ibv_context *ctx = open_device();
	if (!strcmp(argv[1], "sessions")) {
		for (int i = 1; i < count; i++)
			open_device();
	} else {
		struct ibv_pd *pd = ibv_alloc_pd(ctx);
		struct ibv_cq *cq = ibv_create_cq(ctx, 16, NULL, NULL, 0);
		MUST(pd && cq, "alloc");
		for (int i = 0; i < count; i++)
			MUST(make_qp(pd, cq, IBV_QPT_RC, 0), "create_qp");
	}
	puts("held");
	fflush(stdout);
	for (;;)
		pause();
}
