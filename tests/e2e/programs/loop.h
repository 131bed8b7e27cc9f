/* Queue pairs that are connected to themselves, and short ways to post on them. */
#ifndef LOOP_H
#define LOOP_H
#include "common.h"
#include <poll.h>

#define EXPECT(x)                                                                        \
	do {                                                                             \
		if (!(x)) {                                                              \
			fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #x, \
				errno);                                                  \
			exit(1);                                                         \
		}                                                                        \
	} while (0)

#define ALL_ACCESS                                                                         \
	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ)

static inline void connect_to(struct ibv_qp *qp, uint32_t qpn)
{
	union ibv_gid gid;
	EXPECT(!ibv_query_gid(qp->context, PORT, GID_INDEX, &gid));
	EXPECT(!to_init(qp) && !to_rtr(qp, &gid, qpn, 0) && !to_rts(qp, 0));
}

static inline struct ibv_qp *new_qp(struct ibv_pd *pd, struct ibv_cq *cq, unsigned depth)
{
	struct ibv_qp_init_attr init = {
		.send_cq = cq,
		.recv_cq = cq,
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = depth,
			 .max_recv_wr = depth,
			 .max_send_sge = 2,
			 .max_recv_sge = 2,
			 .max_inline_data = 64 },
	};
	struct ibv_qp *qp = ibv_create_qp(pd, &init);
	EXPECT(qp);
	return qp;
}

static inline struct ibv_qp *loop(struct ibv_pd *pd, struct ibv_cq *cq, unsigned depth)
{
	struct ibv_qp *qp = new_qp(pd, cq, depth);
	connect_to(qp, qp->qp_num);
	return qp;
}

/* A signalled request between two places of registered memory. */
static inline int post(struct ibv_qp *qp, enum ibv_wr_opcode opcode, uint64_t wr_id, void *local,
		       uint32_t lkey, void *remote, uint32_t rkey, uint32_t len)
{
	struct ibv_sge sge = { .addr = (uintptr_t)local, .length = len, .lkey = lkey };
	struct ibv_send_wr wr = { .wr_id = wr_id,
				  .sg_list = &sge,
				  .num_sge = 1,
				  .opcode = opcode,
				  .send_flags = IBV_SEND_SIGNALED },
			   *bad = NULL;
	wr.wr.rdma.remote_addr = (uintptr_t)remote;
	wr.wr.rdma.rkey = rkey;
	int error = ibv_post_send(qp, &wr, &bad);
	EXPECT(!error || bad == &wr);
	return error;
}

/* From the first to the second half of a region. */
static inline int post_in(struct ibv_qp *qp, enum ibv_wr_opcode opcode, struct ibv_mr *mr,
			  uint64_t wr_id)
{
	char *remote = (char *)mr->addr + mr->length / 2;
	return post(qp, opcode, wr_id, mr->addr, mr->lkey, remote, mr->rkey, 8);
}

static inline int receive(struct ibv_qp *qp, struct ibv_mr *mr, uint64_t wr_id)
{
	struct ibv_sge sge = { .addr = (uintptr_t)mr->addr, .length = 64, .lkey = mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = wr_id, .sg_list = &sge, .num_sge = 1 }, *bad = NULL;
	int error = ibv_post_recv(qp, &wr, &bad);
	EXPECT(!error || bad == &wr);
	return error;
}

static inline struct ibv_wc good_wc(struct ibv_cq *cq)
{
	struct ibv_wc wc = wait_wc(cq, "completion");
	EXPECT(wc.status == IBV_WC_SUCCESS);
	return wc;
}
#endif
