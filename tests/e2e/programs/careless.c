/* Opens the device twice, registers one buffer ten times, forks and lets the
 * child compute, and exits without giving anything back. */
#include "common.h"
#include <sys/wait.h>

#define LEN (1 << 20)

int main(void)
{
	alarm(30);
	must_be_0(ibv_fork_init(), "fork_init");
	struct ibv_context *one = open_device();
	struct ibv_context *two = open_device();
	MUST(one != two, "the second open gave the first context");
	struct ibv_pd *pd = ibv_alloc_pd(one);
	struct ibv_pd *pd2 = ibv_alloc_pd(two);
	struct ibv_cq *cq = ibv_create_cq(one, 16, NULL, NULL, 0);
	MUST(pd && pd2 && cq && make_qp(pd, cq, IBV_QPT_RC, 0), "alloc");
	puts("opened twice");

	unsigned char *mem = malloc(LEN);
	MUST(mem, "malloc");
	for (int i = 0; i < LEN; i++)
		mem[i] = (unsigned char)i;
	struct ibv_mr *first = NULL;
	for (int i = 0; i < 10; i++) {
		struct ibv_mr *mr = ibv_reg_mr(i % 2 ? pd2 : pd, mem, LEN, IBV_ACCESS_LOCAL_WRITE);
		MUST(mr, "reg_mr");
		if (!first)
			first = mr;
	}
	must_be_0(ibv_dereg_mr(first), "dereg_mr");
	for (int i = 0; i < LEN; i++)
		MUST(mem[i] == (unsigned char)i, "the contents changed");
	puts("registered ten times");
	fflush(stdout);

	pid_t child = fork();
	MUST(child >= 0, "fork");
	if (child == 0) {
		unsigned sum = 0;
		for (int i = 0; i < LEN; i++)
			sum += mem[i]++;
		_exit(sum == LEN / 256 * (255 * 256 / 2) ? 0 : 1);
	}
	int status;
	MUST(waitpid(child, &status, 0) == child, "waitpid");
	if (status != 0) {
		fprintf(stderr, "the child ended with %d\n", status);
		return 1;
	}
	for (int i = 0; i < LEN; i++)
		MUST(mem[i] == (unsigned char)i, "the child's stores reached the parent");
	puts("child computed");
	fflush(stdout);
	_exit(0);
}
