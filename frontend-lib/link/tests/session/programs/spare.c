// A ring that is kept for the next channel is neither lost nor left behind.
#include "check.h"
#include <fcntl.h>
#include <sys/resource.h>

int main(void)
{
	struct ibv_context *context = open_first();
	struct ibv_comp_channel *channel = ibv_create_comp_channel(context);
	EXPECT(channel && !ibv_destroy_comp_channel(channel));

	// No descriptor for it now.
	int first = open("/dev/null", O_RDONLY);
	struct rlimit limit, none;
	EXPECT(first >= 0 && !getrlimit(RLIMIT_NOFILE, &limit));
	none = limit;
	none.rlim_cur = first;
	EXPECT(!close(first));
	EXPECT(!setrlimit(RLIMIT_NOFILE, &none));
	EXPECT(!ibv_create_comp_channel(context) && errno == EMFILE);
	EXPECT(!setrlimit(RLIMIT_NOFILE, &limit));

	channel = ibv_create_comp_channel(context);
	EXPECT(channel && !ibv_destroy_comp_channel(channel));
	EXPECT(!ibv_close_device(context));
	return 0;
}
