/* As many channels and queue pairs as are asked for, all with events, in one process.
 *
 *   many CHANNELS QUEUE_PAIRS */
#include "loop.h"

int main(int argc, char **argv)
{
	EXPECT(argc == 3);
	int channels = atoi(argv[1]), count = atoi(argv[2]);
	struct ibv_context *ctx = open_device(), *other = open_device();
	struct ibv_pd *pd = ibv_alloc_pd(ctx);
	struct ibv_comp_channel **channel = calloc(channels, sizeof *channel);
	struct ibv_cq **cq = calloc(channels, sizeof *cq);
	struct ibv_qp **qp = calloc(count, sizeof *qp);
	struct ibv_mr *mr = ibv_reg_mr(pd, aligned_alloc(4096, 4096), 4096, ALL_ACCESS);
	EXPECT(pd && channel && cq && qp && mr);
	for (int i = 0; i < channels; i++) {
		channel[i] = ibv_create_comp_channel(ctx);
		EXPECT(channel[i]);
		cq[i] = ibv_create_cq(ctx, 64, NULL, channel[i], 0);
		EXPECT(cq[i]);
	}
	for (int i = 0; i < count; i++)
		qp[i] = loop(pd, cq[i % channels], 4);
	for (int i = 0; i < 2 * count; i++) {
		int q = i % count, c = q % channels;
		struct ibv_cq *from;
		void *cq_context;
		EXPECT(!ibv_req_notify_cq(cq[c], 0) && !post_in(qp[q], IBV_WR_RDMA_WRITE, mr, q));
		EXPECT(!ibv_get_cq_event(channel[c], &from, &cq_context) && from == cq[c]);
		ibv_ack_cq_events(from, 1);
		EXPECT(good_wc(from).wr_id == (uint64_t)q);
	}
	for (int i = count - 1; i >= 0; i--)
		EXPECT(!ibv_destroy_qp(qp[i]));
	for (int i = 0; i < channels; i++)
		EXPECT(!ibv_destroy_cq(cq[i]) && !ibv_destroy_comp_channel(channel[i]));
	EXPECT(!ibv_close_device(other));
	/* The domain and the region are left to the end of the session. */
	EXPECT(!ibv_close_device(ctx));
	return 0;
}
