/* Each kind of memory as source and destination of every other, contents checked. */
#define _GNU_SOURCE
#include "loop.h"
#include <sys/mman.h>
#include <sys/shm.h>

#define LEN (3 * 4096 - 100)
#define KINDS 10

static char bss[5 * 4096 + 123], data[4 * 4096] = { 1 };

static char *map(int flags, int fd)
{
	char *at = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, flags, fd, 0);
	EXPECT(at != MAP_FAILED);
	return at;
}

int main(void)
{
	struct ibv_context *ctx = open_device();
	struct ibv_pd *pd = ibv_alloc_pd(ctx);
	struct ibv_cq *cq = ibv_create_cq(ctx, 16, NULL, NULL, 0);
	EXPECT(pd && cq);
	struct ibv_qp *qp = loop(pd, cq, 8);
	char stack[4 * 4096];
	FILE *file = tmpfile();
	EXPECT(file && !ftruncate(fileno(file), 1 << 16));
	int shm = shmget(IPC_PRIVATE, 1 << 16, 0600);
	EXPECT(shm >= 0);
	struct {
		const char *name;
		char *at;
		struct ibv_mr *mr;
	} kinds[KINDS] = {
		{ .name = "anonymous", .at = map(MAP_PRIVATE | MAP_ANONYMOUS, -1) },
		{ .name = "heap", .at = malloc(LEN) },
		{ .name = "part of a page", .at = (char *)malloc(1 << 16) + 33 },
		{ .name = "stack", .at = stack },
		{ .name = "bss", .at = bss },
		{ .name = "data", .at = data },
		{ .name = "System V", .at = shmat(shm, NULL, 0) },
		{ .name = "shared file", .at = map(MAP_SHARED, fileno(file)) },
		{ .name = "private file", .at = map(MAP_PRIVATE, fileno(file)) },
		{ .name = "shared anonymous", .at = map(MAP_SHARED | MAP_ANONYMOUS, -1) },
	};
	EXPECT(!shmctl(shm, IPC_RMID, NULL));
	for (int i = 0; i < KINDS; i++) {
		kinds[i].mr = ibv_reg_mr(pd, kinds[i].at, LEN, ALL_ACCESS);
		MUST(kinds[i].mr, kinds[i].name);
	}
	for (unsigned turn = 0; turn < 2 * KINDS * KINDS; turn++) {
		int from = turn / 2 % KINDS, to = turn / 2 / KINDS, read = turn % 2;
		if (from == to)
			continue;
		unsigned skip = turn * 13 % 100;
		for (int i = 0; i < LEN; i++)
			kinds[from].at[i] = (char)(turn + i * 7);
		memset(kinds[to].at, 0, LEN);
		int local = read ? to : from, remote = read ? from : to;
		EXPECT(!post(qp, read ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE, turn,
			     kinds[local].at + skip, kinds[local].mr->lkey, kinds[remote].at + skip,
			     kinds[remote].mr->rkey, LEN - skip));
		struct ibv_wc wc = wait_wc(cq, kinds[to].name);
		for (int i = 0; i < LEN; i++) {
			char expected = i < (int)skip ? 0 : (char)(turn + i * 7);
			if (wc.status || kinds[to].at[i] != expected) {
				fprintf(stderr, "%s to %s: status %d, byte %d\n", kinds[from].name,
					kinds[to].name, wc.status, i);
				return 1;
			}
		}
	}
	for (int i = 0; i < KINDS; i++)
		EXPECT(!ibv_dereg_mr(kinds[i].mr));
	EXPECT(!ibv_destroy_qp(qp) && !ibv_destroy_cq(cq));
	EXPECT(!ibv_dealloc_pd(pd) && !ibv_close_device(ctx));
	return 0;
}
