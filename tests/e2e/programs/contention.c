/* Threads that share queue pairs and a CQ, while others register memory, resize the CQ,
 * create and destroy queue pairs, fork and take signals. Contents are checked. */
#define _GNU_SOURCE
#include "loop.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <sys/wait.h>

#define POSTERS 5
#define SHARED 4
#define ROUNDS 5000
#define LEN 512
/* wr_id of queue pairs that are destroyed with completions waiting. */
#define STRAY 1000

static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_qp *qps[SHARED];
static struct ibv_mr *mr;
static atomic_int done[POSTERS], stop;

static void poll_shared(unsigned *seed)
{
	struct ibv_wc wc[3];
	int n = ibv_poll_cq(cq, 1 + rand_r(seed) % 3, wc);
	EXPECT(n >= 0);
	for (int i = 0; i < n; i++) {
		if (wc[i].wr_id >= STRAY)
			continue;
		EXPECT(wc[i].status == IBV_WC_SUCCESS && !done[wc[i].wr_id]);
		done[wc[i].wr_id] = 1;
	}
}

static void *poster(void *argument)
{
	long me = (long)argument;
	unsigned seed = me;
	char *from = (char *)mr->addr + me * 65536, *to = from + mr->length / 2;
	for (int i = 0; i < ROUNDS; i++) {
		int read = i % 2, error;
		for (int x = 0; x < LEN; x++)
			from[x] = (char)(i + x + me);
		memset(to, 0, LEN);
		done[me] = 0;
		while ((error = post(qps[rand_r(&seed) % SHARED],
				     read ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE, me,
				     read ? to : from, mr->lkey, read ? from : to, mr->rkey, LEN)) ==
		       ENOMEM)
			sched_yield();
		EXPECT(!error);
		while (!done[me])
			poll_shared(&seed);
		for (int x = 0; x < LEN; x++)
			EXPECT(to[x] == (char)(i + x + me));
	}
	return NULL;
}

static void *registrar(void *argument)
{
	unsigned seed = (long)argument;
	while (!stop) {
		size_t len = 4096 + rand_r(&seed) % 200000;
		char *at = malloc(len);
		for (size_t i = 0; i < len; i += 97)
			at[i] = (char)i;
		struct ibv_mr *whole = ibv_reg_mr(pd, at, len, ALL_ACCESS);
		struct ibv_mr *part = ibv_reg_mr(pd, at + len / 3, len / 3, IBV_ACCESS_LOCAL_WRITE);
		EXPECT(whole && part && !ibv_dereg_mr(whole) && !ibv_dereg_mr(part));
		for (size_t i = 0; i < len; i += 97)
			EXPECT(at[i] == (char)i);
		free(at);
	}
	return NULL;
}

static void ignore(int signal)
{
	(void)signal;
}

int main(void)
{
	alarm(100);
	struct ibv_context *ctx = open_device();
	pd = ibv_alloc_pd(ctx);
	cq = ibv_create_cq(ctx, 256, NULL, NULL, 0);
	EXPECT(pd && cq);
	mr = ibv_reg_mr(pd, aligned_alloc(4096, 2 << 20), 2 << 20, ALL_ACCESS);
	EXPECT(mr);
	for (int i = 0; i < SHARED; i++)
		qps[i] = loop(pd, cq, 3);
	struct sigaction action = { .sa_handler = ignore, .sa_flags = SA_RESTART };
	struct itimerval often = { { 0, 2000 }, { 0, 2000 } }, never = { { 0, 0 }, { 0, 0 } };
	EXPECT(!sigaction(SIGPROF, &action, NULL) && !setitimer(ITIMER_PROF, &often, NULL));

	/* Where no poster works. */
	char *apart = (char *)mr->addr + POSTERS * 65536;
	pthread_t posters[POSTERS], registrars[2];
	for (long i = 0; i < POSTERS; i++)
		EXPECT(!pthread_create(&posters[i], NULL, poster, (void *)i));
	for (long i = 0; i < 2; i++)
		EXPECT(!pthread_create(&registrars[i], NULL, registrar, (void *)i));
	for (int i = 0; i < 20; i++) {
		EXPECT(!ibv_resize_cq(cq, 200 + i * 37 % 300));
		struct ibv_qp *stray = loop(pd, cq, 16);
		for (int k = 0; k < 16; k++)
			EXPECT(!post(stray, IBV_WR_RDMA_READ, STRAY, apart, mr->lkey, apart + LEN,
				     mr->rkey, LEN));
		pid_t child = fork();
		if (child == 0)
			_exit(0);
		int status;
		EXPECT(waitpid(child, &status, 0) == child && status == 0);
		EXPECT(system("true") == 0);
		EXPECT(!ibv_destroy_qp(stray));
	}
	for (int i = 0; i < POSTERS; i++)
		EXPECT(!pthread_join(posters[i], NULL));
	stop = 1;
	for (int i = 0; i < 2; i++)
		EXPECT(!pthread_join(registrars[i], NULL));
	EXPECT(!setitimer(ITIMER_PROF, &never, NULL));
	for (int i = 0; i < SHARED; i++)
		EXPECT(!ibv_destroy_qp(qps[i]));
	struct pollfd async = { .fd = ctx->async_fd, .events = POLLIN };
	EXPECT(poll(&async, 1, 0) == 0);
	EXPECT(!ibv_destroy_cq(cq) && !ibv_dereg_mr(mr) && !ibv_dealloc_pd(pd));
	EXPECT(!ibv_close_device(ctx));
	return 0;
}
