// The backend hangs up while a program waits for an event, and while one polls.
#include "check.h"
#include <pthread.h>

#define WAITERS 3

// One of several threads that wait on the same channel.
static void *wait_for_event(void *channel)
{
	struct ibv_cq *from;
	void *cq_context;
	EXPECT(ibv_get_cq_event(channel, &from, &cq_context) == -1 && errno == EIO);
	return NULL;
}

static void *wait_readable(void *channel)
{
	struct pollfd readable = { .fd = ((struct ibv_comp_channel *)channel)->fd, .events = POLLIN };
	EXPECT(poll(&readable, 1, -1) == 1);
	return NULL;
}

int main(void)
{
	struct ibv_context *context = open_first();
	struct ibv_comp_channel *channel = ibv_create_comp_channel(context);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	EXPECT(channel && pd);
	struct ibv_cq *cq = ibv_create_cq(context, 16, NULL, channel, 0);
	EXPECT(cq);
	struct ibv_qp *qp = loop(pd, cq, 16);
	pthread_t waiters[WAITERS], poller;
	for (int i = 0; i < WAITERS; i++)
		EXPECT(!pthread_create(&waiters[i], NULL, wait_for_event, channel));
	EXPECT(!pthread_create(&poller, NULL, wait_readable, channel));
	usleep(50000);
	puts("ready");
	fflush(stdout);

	struct ibv_async_event event;
	EXPECT(!ibv_get_async_event(context, &event));
	EXPECT(event.event_type == IBV_EVENT_DEVICE_FATAL);
	ibv_ack_async_event(&event);
	EXPECT(ibv_get_async_event(context, &event) == -1);

	struct ibv_cq *from;
	void *cq_context;
	EXPECT(ibv_get_cq_event(channel, &from, &cq_context) == -1);

	// All of them are woken, and so is who comes later.
	for (int i = 0; i < WAITERS; i++)
		EXPECT(!pthread_join(waiters[i], NULL));
	EXPECT(!pthread_join(poller, NULL));
	wait_readable(channel);

	struct ibv_wc wc;
	int n = 0;
	for (int i = 0; i < 5000 && n == 0; i++)
		n = ibv_poll_cq(cq, 1, &wc);
	EXPECT(n < 0);

	EXPECT(!ibv_alloc_pd(context) && errno == ENODEV);
	EXPECT(!ibv_destroy_qp(qp));
	EXPECT(!ibv_destroy_cq(cq));
	EXPECT(!ibv_destroy_comp_channel(channel));
	EXPECT(!ibv_dealloc_pd(pd));
	EXPECT(!ibv_close_device(context));
	return 0;
}
