// A forked child leaves its parent's session alone, and opens its own.
#include "check.h"

int main(void)
{
	struct ibv_context *context = open_first();
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_cq *cq = ibv_create_cq(context, 16, NULL, NULL, 0);
	char *buffer = aligned_alloc(4096, 8192);
	EXPECT(pd && cq && buffer);
	struct ibv_mr *mr = ibv_reg_mr(pd, buffer, 8192, IBV_ACCESS_LOCAL_WRITE);
	EXPECT(mr);
	struct ibv_qp *qp = loop(pd, cq, 4);

	pid_t child = fork();
	EXPECT(child >= 0);
	if (child == 0) {
		alarm(20);
		EXPECT(!ibv_alloc_pd(context) && errno == ENODEV);
		EXPECT(!ibv_reg_mr(pd, buffer, 8192, 0));
		EXPECT(!ibv_dereg_mr(mr));
		EXPECT(!ibv_destroy_qp(qp));
		EXPECT(!ibv_close_device(context));
		struct ibv_context *own = open_first();
		struct ibv_pd *own_pd = ibv_alloc_pd(own);
		EXPECT(own_pd);
		EXPECT(ibv_reg_mr(own_pd, buffer, 8192, IBV_ACCESS_LOCAL_WRITE));
		_exit(0);
	}
	int status;
	EXPECT(waitpid(child, &status, 0) == child);
	EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);

	// The parent's session works as before.
	EXPECT(!recv_one(qp, mr, 1));
	send_one(qp, 2);
	EXPECT(poll_one(cq).status == IBV_WC_SUCCESS);
	EXPECT(poll_one(cq).status == IBV_WC_SUCCESS);
	EXPECT(!ibv_dereg_mr(mr));
	EXPECT(!ibv_destroy_qp(qp) && !ibv_destroy_cq(cq));
	EXPECT(!ibv_dealloc_pd(pd) && !ibv_close_device(context));
	return 0;
}
