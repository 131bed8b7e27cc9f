/* Queues at their limits and in each state; what becomes of completions and events of
 * objects that go. */
#include "loop.h"

static struct ibv_context *ctx;
static struct ibv_pd *pd;
static struct ibv_mr *mr;
static struct ibv_comp_channel *channel;

static void full(struct ibv_cq *cq, struct ibv_qp *qp)
{
	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < 7; i++)
			EXPECT(!post_in(qp, IBV_WR_SEND, mr, i));
		EXPECT(post_in(qp, IBV_WR_SEND, mr, 7) == ENOMEM);
		for (int i = 0; i < 7; i++)
			EXPECT(!receive(qp, mr, i));
		for (int i = 0; i < 14; i++)
			good_wc(cq);
	}
}

static void bad_requests(struct ibv_cq *cq, struct ibv_qp *qp)
{
	struct ibv_sge sges[3] = { { .addr = (uintptr_t)mr->addr, .length = 8, .lkey = mr->lkey } };
	struct ibv_sge long_sge = { .addr = (uintptr_t)mr->addr, .length = 65 };
	struct ibv_send_wr second = { .sg_list = sges, .num_sge = 3, .opcode = IBV_WR_SEND }, *bad;
	struct ibv_send_wr first = { .wr_id = 77,
				     .next = &second,
				     .sg_list = sges,
				     .num_sge = 1,
				     .opcode = IBV_WR_RDMA_WRITE,
				     .send_flags = IBV_SEND_SIGNALED };
	first.wr.rdma.remote_addr = (uintptr_t)mr->addr;
	first.wr.rdma.rkey = mr->rkey;
	/* What comes before the bad request is posted. */
	EXPECT(ibv_post_send(qp, &first, &bad) == EINVAL && bad == &second);
	EXPECT(good_wc(cq).wr_id == 77);
	second.num_sge = -1;
	EXPECT(ibv_post_send(qp, &second, &bad) == EINVAL);
	second.num_sge = 1;
	second.sg_list = &long_sge;
	second.send_flags = IBV_SEND_INLINE;
	EXPECT(ibv_post_send(qp, &second, &bad) == EINVAL);
	second.opcode = 200;
	EXPECT(ibv_post_send(qp, &second, &bad) == EINVAL);
	struct ibv_wc wc;
	EXPECT(ibv_poll_cq(cq, 1, &wc) == 0);
}

static void states(struct ibv_cq *cq, struct ibv_qp *qp)
{
	struct ibv_qp_attr error = { .qp_state = IBV_QPS_ERR }, reset = { .qp_state = IBV_QPS_RESET };
	struct ibv_wc wc;
	EXPECT(!ibv_modify_qp(qp, &error, IBV_QP_STATE));
	for (int i = 0; i < 50; i++) {
		EXPECT(!receive(qp, mr, i));
		wc = wait_wc(cq, "flushed receive");
		EXPECT(wc.status == IBV_WC_WR_FLUSH_ERR && wc.wr_id == (uint64_t)i);
		EXPECT(!post_in(qp, IBV_WR_SEND, mr, i));
		wc = wait_wc(cq, "flushed send");
		EXPECT(wc.status == IBV_WC_WR_FLUSH_ERR && wc.wr_id == (uint64_t)i);
	}
	for (int round = 0; round < 10; round++) {
		/* Flushes that nobody polls are gone with the reset, and their places back. */
		for (int i = 0; i < 7; i++)
			EXPECT(!receive(qp, mr, i));
		EXPECT(!ibv_modify_qp(qp, &reset, IBV_QP_STATE));
		EXPECT(ibv_poll_cq(cq, 1, &wc) == 0);
		EXPECT(receive(qp, mr, 0) == EINVAL && post_in(qp, IBV_WR_SEND, mr, 0) == EINVAL);
		connect_to(qp, qp->qp_num);
		for (int i = 0; i < 7; i++)
			EXPECT(!receive(qp, mr, i) && !post_in(qp, IBV_WR_SEND, mr, i));
		for (int i = 0; i < 14; i++)
			good_wc(cq);
		EXPECT(!ibv_modify_qp(qp, &error, IBV_QP_STATE));
	}
}

/* A CQ of 16 whose queue pairs leave up to 14 completions each, and one that stays. */
static void places_come_back(struct ibv_cq *cq)
{
	struct ibv_wc wc;
	struct ibv_qp *kept = loop(pd, cq, 4);
	for (int round = 0; round < 30; round++) {
		struct ibv_qp *gone = loop(pd, cq, 6);
		EXPECT(!post_in(kept, IBV_WR_RDMA_WRITE, mr, 100));
		for (int i = 0; i < 6; i++)
			EXPECT(!receive(gone, mr, i) && !post_in(gone, IBV_WR_SEND, mr, i));
		EXPECT(!post_in(kept, IBV_WR_RDMA_WRITE, mr, 101));
		usleep(3000);
		EXPECT(!ibv_destroy_qp(gone));
		EXPECT(good_wc(cq).wr_id == 100 && good_wc(cq).wr_id == 101);
		EXPECT(ibv_poll_cq(cq, 1, &wc) == 0);
		/* And without a poll. */
		gone = loop(pd, cq, 7);
		for (int i = 0; i < 7; i++)
			EXPECT(!receive(gone, mr, i) && !post_in(gone, IBV_WR_SEND, mr, i));
		usleep(3000);
		EXPECT(!ibv_destroy_qp(gone));
	}
	EXPECT(!ibv_destroy_qp(kept));
	struct pollfd async = { .fd = ctx->async_fd, .events = POLLIN };
	EXPECT(poll(&async, 1, 0) == 0);
}

/* An event of a CQ that is destroyed leaves the channel's descriptor silent. */
static void events_go_with_their_cq(void)
{
	for (int round = 0; round < 10; round++) {
		struct ibv_cq *cqs[2];
		struct ibv_qp *qps[2];
		for (int i = 0; i < 2; i++) {
			cqs[i] = ibv_create_cq(ctx, 16, NULL, channel, 0);
			EXPECT(cqs[i] && !ibv_req_notify_cq(cqs[i], 0));
			qps[i] = loop(pd, cqs[i], 4);
			EXPECT(!post_in(qps[i], IBV_WR_RDMA_WRITE, mr, 1));
			good_wc(cqs[i]);
		}
		usleep(10000);
		EXPECT(!ibv_destroy_qp(qps[0]) && !ibv_destroy_cq(cqs[0]));
		struct ibv_cq *from;
		void *cq_context;
		EXPECT(!ibv_get_cq_event(channel, &from, &cq_context) && from == cqs[1]);
		ibv_ack_cq_events(from, 1);
		struct pollfd readable = { .fd = channel->fd, .events = POLLIN };
		EXPECT(poll(&readable, 1, 0) == 0);
		EXPECT(!ibv_destroy_qp(qps[1]) && !ibv_destroy_cq(cqs[1]));
	}
}

static int event_within(int ms)
{
	struct pollfd readable = { .fd = channel->fd, .events = POLLIN };
	struct ibv_cq *from;
	void *cq_context;
	if (poll(&readable, 1, ms) != 1)
		return 0;
	EXPECT(!ibv_get_cq_event(channel, &from, &cq_context));
	ibv_ack_cq_events(from, 1);
	return 1;
}

/* Asking for solicited events takes back nothing that was asked for before. */
static void asked_for_any_then_solicited(void)
{
	struct ibv_cq *cq = ibv_create_cq(ctx, 16, NULL, channel, 0);
	struct ibv_qp *qp = loop(pd, cq, 4);
	EXPECT(!ibv_req_notify_cq(cq, 0) && !ibv_req_notify_cq(cq, 1));
	EXPECT(!post_in(qp, IBV_WR_RDMA_WRITE, mr, 1));
	good_wc(cq);
	EXPECT(event_within(10000));
	/* It has come, so now only solicited ones are wanted. */
	EXPECT(!ibv_req_notify_cq(cq, 1) && !post_in(qp, IBV_WR_RDMA_WRITE, mr, 2));
	good_wc(cq);
	EXPECT(!event_within(100));
	EXPECT(!ibv_req_notify_cq(cq, 0) && !post_in(qp, IBV_WR_RDMA_WRITE, mr, 3));
	good_wc(cq);
	EXPECT(event_within(10000));
	EXPECT(!ibv_destroy_qp(qp) && !ibv_destroy_cq(cq));
}

int main(void)
{
	ctx = open_device();
	pd = ibv_alloc_pd(ctx);
	channel = ibv_create_comp_channel(ctx);
	struct ibv_cq *cq = ibv_create_cq(ctx, 16, NULL, channel, 0);
	EXPECT(pd && cq && channel);
	mr = ibv_reg_mr(pd, aligned_alloc(4096, 8192), 8192, ALL_ACCESS);
	EXPECT(mr);
	struct ibv_qp *qp = new_qp(pd, cq, 7);
	EXPECT(receive(qp, mr, 0) == EINVAL && post_in(qp, IBV_WR_SEND, mr, 0) == EINVAL);
	EXPECT(ibv_dealloc_pd(pd) == EBUSY && ibv_destroy_cq(cq) == EBUSY);
	EXPECT(ibv_destroy_comp_channel(channel) == EBUSY);
	connect_to(qp, qp->qp_num);
	full(cq, qp);
	bad_requests(cq, qp);
	states(cq, qp);
	EXPECT(!ibv_destroy_qp(qp));
	places_come_back(cq);
	events_go_with_their_cq();
	asked_for_any_then_solicited();
	EXPECT(!ibv_destroy_cq(cq) && !ibv_destroy_comp_channel(channel));
	EXPECT(!ibv_dereg_mr(mr) && !ibv_dealloc_pd(pd) && !ibv_close_device(ctx));
	return 0;
}
