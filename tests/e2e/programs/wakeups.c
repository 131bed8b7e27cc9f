/* Two processes that send to each other in turn, and block for each message.
 *
 *   wakeups COUNT MAX_SLEEP_US block|nonblock
 *
 * A lost wake-up or a lost kick of a sleeping device is a hang, which the alarm ends. */
#define _GNU_SOURCE
#include "loop.h"
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#define SLOTS 16
#define SLOT 64

static uint64_t count;
static unsigned max_sleep_us;
static int nonblock;

static void tell(int from, int to, void *mine, void *theirs, ssize_t len)
{
	EXPECT(write(to, mine, len) == len && read(from, theirs, len) == len);
}

static void wait_event(struct ibv_comp_channel *channel, int epoll)
{
	struct ibv_cq *from;
	void *cq_context;
	while (ibv_get_cq_event(channel, &from, &cq_context)) {
		struct epoll_event event;
		EXPECT(nonblock && errno == EAGAIN);
		EXPECT(epoll_wait(epoll, &event, 1, 20000) == 1);
	}
	ibv_ack_cq_events(from, 1);
}

static void side(int from, int to, int first)
{
	alarm(100);
	struct ibv_context *ctx = open_device();
	struct ibv_pd *pd = ibv_alloc_pd(ctx);
	struct ibv_comp_channel *channel = ibv_create_comp_channel(ctx);
	struct ibv_cq *cq = ibv_create_cq(ctx, 128, NULL, channel, 0);
	EXPECT(pd && channel && cq);
	struct ibv_mr *mr = ibv_reg_mr(pd, aligned_alloc(4096, 4096), 4096, ALL_ACCESS);
	EXPECT(mr);
	struct ibv_qp *qp = new_qp(pd, cq, 2 * SLOTS);
	uint32_t peer;
	tell(from, to, &qp->qp_num, &peer, sizeof peer);
	connect_to(qp, peer);

	struct ibv_sge sge = { .length = SLOT, .lkey = mr->lkey };
	struct ibv_recv_wr recv = { .sg_list = &sge, .num_sge = 1 }, *bad_recv;
	for (recv.wr_id = 0; recv.wr_id < SLOTS; recv.wr_id++) {
		sge.addr = (uintptr_t)mr->addr + recv.wr_id * SLOT;
		EXPECT(!ibv_post_recv(qp, &recv, &bad_recv));
	}
	int epoll = epoll_create1(0);
	struct epoll_event edge = { .events = EPOLLIN | EPOLLET };
	EXPECT(!epoll_ctl(epoll, EPOLL_CTL_ADD, channel->fd, &edge));
	if (nonblock)
		EXPECT(!fcntl(channel->fd, F_SETFL, fcntl(channel->fd, F_GETFL) | O_NONBLOCK));
	EXPECT(!ibv_req_notify_cq(cq, 0));
	tell(from, to, &peer, &peer, 1);

	unsigned seed = first + 1;
	uint64_t sent = 0, got = 0;
	int my_turn = first;
	while (sent < count || got < count) {
		if (my_turn && sent < count) {
			if (max_sleep_us)
				usleep(rand_r(&seed) % max_sleep_us);
			struct ibv_sge data = { .addr = (uintptr_t)&sent, .length = sizeof sent };
			struct ibv_send_wr send = { .wr_id = SLOTS,
						    .sg_list = &data,
						    .num_sge = 1,
						    .opcode = IBV_WR_SEND,
						    .send_flags = IBV_SEND_INLINE },
					   *bad;
			if (sent % SLOTS == 0)
				send.send_flags |= IBV_SEND_SIGNALED;
			EXPECT(!ibv_post_send(qp, &send, &bad));
			sent++;
			my_turn = 0;
		}
		struct ibv_wc wc;
		int n;
		while (got < count && !my_turn) {
			EXPECT((n = ibv_poll_cq(cq, 1, &wc)) >= 0);
			if (n == 0) {
				wait_event(channel, epoll);
				/* Whatever was armed before, any completion counts now. */
				if (got % 3 == 0)
					EXPECT(!ibv_req_notify_cq(cq, 1));
				EXPECT(!ibv_req_notify_cq(cq, 0));
				continue;
			}
			EXPECT(wc.status == IBV_WC_SUCCESS);
			if (wc.wr_id == SLOTS)
				continue;
			sge.addr = (uintptr_t)mr->addr + wc.wr_id * SLOT;
			EXPECT(!memcmp((void *)sge.addr, &got, sizeof got));
			recv.wr_id = wc.wr_id;
			EXPECT(!ibv_post_recv(qp, &recv, &bad_recv));
			got++;
			my_turn = 1;
		}
	}
	tell(from, to, &peer, &peer, 1);
	EXPECT(!ibv_destroy_qp(qp) && !ibv_destroy_cq(cq) && !ibv_destroy_comp_channel(channel));
	EXPECT(!ibv_dereg_mr(mr) && !ibv_dealloc_pd(pd) && !ibv_close_device(ctx));
}

int main(int argc, char **argv)
{
	EXPECT(argc == 4);
	count = strtoull(argv[1], NULL, 10);
	max_sleep_us = atoi(argv[2]);
	nonblock = !strcmp(argv[3], "nonblock");
	int there[2], back[2], status;
	EXPECT(!pipe(there) && !pipe(back));
	pid_t child = fork();
	if (child == 0) {
		side(there[0], back[1], 0);
		return 0;
	}
	side(back[0], there[1], 1);
	EXPECT(waitpid(child, &status, 0) == child && status == 0);
	return 0;
}
