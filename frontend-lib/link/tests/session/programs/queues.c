// Queues at their edges: full, resized with entries waiting, of a QP that is destroyed.
#include "check.h"

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_mr *mr;

// A full receive queue says ENOMEM at the request that does not fit, and takes more
// once some were used.
static void full_queue(void)
{
	struct ibv_cq *cq = ibv_create_cq(context, 64, NULL, NULL, 0);
	struct ibv_qp *qp = loop(pd, cq, 5);
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 5; i++)
			EXPECT(!recv_one(qp, mr, i));
		EXPECT(recv_one(qp, mr, 5) == ENOMEM);
		for (int i = 0; i < 5; i++)
			send_one(qp, 100 + i);
		for (int seen = 0; seen < 10; seen++)
			EXPECT(poll_one(cq).status == IBV_WC_SUCCESS);
	}
	EXPECT(!ibv_destroy_qp(qp) && !ibv_destroy_cq(cq));
}

// Entries from before a resize come first, in their order.
static void resized_queue(void)
{
	struct ibv_cq *cq = ibv_create_cq(context, 32, NULL, NULL, 0);
	struct ibv_qp *qp = loop(pd, cq, 8);
	uint64_t expected_send = 0, posted = 0;
	for (int size = 40; size < 400; size += 90) {
		for (int i = 0; i < 4; i++)
			EXPECT(!recv_one(qp, mr, 1000));
		for (int i = 0; i < 4; i++)
			send_one(qp, posted++);
		usleep(20000);
		EXPECT(!ibv_resize_cq(cq, size) && cq->cqe == size);
		for (int i = 0; i < 8; i++) {
			struct ibv_wc wc = poll_one(cq);
			EXPECT(wc.status == IBV_WC_SUCCESS);
			if (wc.opcode == IBV_WC_SEND)
				EXPECT(wc.wr_id == expected_send++);
		}
	}
	EXPECT(expected_send == posted);
	EXPECT(!ibv_destroy_qp(qp) && !ibv_destroy_cq(cq));
}

// Completions of a destroyed or reset QP are not given out; those of another are.
static void cleaned_queue(void)
{
	struct ibv_cq *cq = ibv_create_cq(context, 64, NULL, NULL, 0);
	struct ibv_qp *gone = loop(pd, cq, 8), *kept = loop(pd, cq, 8);
	EXPECT(!recv_one(gone, mr, 1) && !recv_one(kept, mr, 2));
	send_one(gone, 3);
	send_one(kept, 4);
	usleep(20000);
	EXPECT(!ibv_destroy_qp(gone));
	for (int i = 0; i < 2; i++)
		EXPECT(poll_one(cq).qp_num == kept->qp_num);
	struct ibv_wc wc;
	EXPECT(ibv_poll_cq(cq, 1, &wc) == 0);
	EXPECT(!ibv_destroy_qp(kept) && !ibv_destroy_cq(cq));
}

// A CQ waits for its acknowledgements; a channel for its CQs.
static void acknowledged(void)
{
	struct ibv_comp_channel *channel = ibv_create_comp_channel(context);
	struct ibv_cq *cq = ibv_create_cq(context, 16, &context, channel, 0);
	EXPECT(channel && cq && channel->refcnt == 1);
	EXPECT(ibv_destroy_comp_channel(channel) == EBUSY);
	struct ibv_qp *qp = loop(pd, cq, 4);
	EXPECT(!ibv_req_notify_cq(cq, 0) && !recv_one(qp, mr, 1));
	send_one(qp, 2);
	struct pollfd readable = { .fd = channel->fd, .events = POLLIN };
	EXPECT(poll(&readable, 1, 10000) == 1);
	struct ibv_cq *from;
	void *cq_context;
	EXPECT(!ibv_get_cq_event(channel, &from, &cq_context));
	EXPECT(from == cq && cq_context == &context);
	ibv_ack_cq_events(cq, 1);
	EXPECT(poll(&readable, 1, 0) == 0);
	EXPECT(!ibv_destroy_qp(qp) && !ibv_destroy_cq(cq));
	EXPECT(!ibv_destroy_comp_channel(channel));
}

// More channels than a connection has virtqueues, each with its own events; they come
// and go, and their virtqueues are used again.
static void many_channels(void)
{
	struct ibv_comp_channel *channels[23];
	struct ibv_cq *cqs[23];
	struct ibv_qp *qps[23];
	for (int i = 0; i < 23; i++) {
		channels[i] = ibv_create_comp_channel(context);
		EXPECT(channels[i]);
		cqs[i] = ibv_create_cq(context, 16, NULL, channels[i], 0);
		EXPECT(cqs[i] && !ibv_req_notify_cq(cqs[i], 0));
		qps[i] = loop(pd, cqs[i], 4);
	}
	for (int i = 0; i < 23; i++) {
		EXPECT(!recv_one(qps[i], mr, 1));
		send_one(qps[i], 2);
		struct ibv_cq *from;
		void *cq_context;
		EXPECT(!ibv_get_cq_event(channels[i], &from, &cq_context) && from == cqs[i]);
		ibv_ack_cq_events(from, 1);
	}
	for (int i = 0; i < 23; i++) {
		EXPECT(!ibv_destroy_qp(qps[i]) && !ibv_destroy_cq(cqs[i]));
		EXPECT(!ibv_destroy_comp_channel(channels[i]));
	}
	for (int i = 0; i < 600; i++) {
		struct ibv_comp_channel *channel = ibv_create_comp_channel(context);
		EXPECT(channel && !ibv_destroy_comp_channel(channel));
	}
}

int main(void)
{
	context = open_first();
	pd = ibv_alloc_pd(context);
	EXPECT(pd);
	mr = ibv_reg_mr(pd, aligned_alloc(4096, 4096), 4096, IBV_ACCESS_LOCAL_WRITE);
	EXPECT(mr);
	full_queue();
	resized_queue();
	cleaned_queue();
	acknowledged();
	many_channels();
	EXPECT(!ibv_dereg_mr(mr) && !ibv_dealloc_pd(pd) && !ibv_close_device(context));
	return 0;
}
