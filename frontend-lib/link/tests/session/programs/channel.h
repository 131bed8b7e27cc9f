// What the programs about event channels share.
#include "check.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <rdma/rdma_user_cm.h>
#include <sys/stat.h>

#define DEVICE "/dev/infiniband/rdma_cm"
#define NOWHERE ((uintptr_t)64)

static int (*cm_open)(const char *, int), (*cm_openat)(const char *, int);
static int (*cm_fstat)(int, struct stat *), (*cm_close)(int);
static long (*cm_write)(int, const void *, unsigned long);

// Loads what passes for librdmacm, as Python would, and asks for devices as it would.
static inline void load(const char *path)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	ibv_free_device_list(list);
	void *library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
	EXPECT(library);
	cm_open = dlsym(library, "cm_open");
	cm_openat = dlsym(library, "cm_openat");
	cm_fstat = dlsym(library, "cm_fstat");
	cm_close = dlsym(library, "cm_close");
	cm_write = dlsym(library, "cm_write");
	EXPECT(cm_open && cm_openat && cm_fstat && cm_close && cm_write);
	list = ibv_get_device_list(NULL);
	ibv_free_device_list(list);
}

static char command_[1024] __attribute__((aligned(8)));
#define BODY(type) ((struct type *)(command_ + sizeof(struct rdma_ucm_cmd_hdr)))

static inline int send_command(int fd, unsigned number, unsigned room, unsigned len)
{
	*(struct rdma_ucm_cmd_hdr *)command_ = (struct rdma_ucm_cmd_hdr){ number, len, room };
	long n = cm_write(fd, command_, 8 + len);
	EXPECT(n == -1 || n == 8 + (long)len);
	return n == -1 ? errno : 0;
}

// Ways to send each command; 0 or errno. Responses lie on the stack, or where told.
static inline int create(int fd, uint64_t uid, uint32_t *id)
{
	*BODY(rdma_ucm_create_id) = (struct rdma_ucm_create_id){
		.uid = uid, .response = (uintptr_t)id, .ps = RDMA_PS_TCP,
	};
	return send_command(fd, RDMA_USER_CM_CMD_CREATE_ID, 4, sizeof(struct rdma_ucm_create_id));
}

static inline int destroy(int fd, uint32_t id, uint32_t *reported)
{
	*BODY(rdma_ucm_destroy_id) = (struct rdma_ucm_destroy_id){
		.response = (uintptr_t)reported, .id = id,
	};
	return send_command(fd, RDMA_USER_CM_CMD_DESTROY_ID, 4,
			    sizeof(struct rdma_ucm_destroy_id));
}

static inline int bind_to(int fd, uint32_t id, int family, int port)
{
	struct rdma_ucm_bind_ip *bind = BODY(rdma_ucm_bind_ip);
	memset(bind, 0, sizeof *bind);
	bind->id = id;
	bind->addr.sin6_family = family;
	bind->addr.sin6_port = htons(port);
	return send_command(fd, RDMA_USER_CM_CMD_BIND_IP, 0, sizeof *bind);
}

// Raises events that the answer tells of.
static inline int raise_told(int fd, uint32_t id, uint32_t count)
{
	*BODY(rdma_ucm_resolve_route) = (struct rdma_ucm_resolve_route){ id, count };
	return send_command(fd, RDMA_USER_CM_CMD_RESOLVE_ROUTE, 0, 8);
}

// Raises events that are signalled.
static inline int raise_signalled(int fd, uint32_t id, uint32_t count)
{
	*BODY(rdma_ucm_notify) = (struct rdma_ucm_notify){ id, count };
	return send_command(fd, RDMA_USER_CM_CMD_NOTIFY, 0, 8);
}

static inline int get_event(int fd, struct rdma_ucm_event_resp *event)
{
	struct {
		struct rdma_ucm_cmd_hdr hdr;
		struct rdma_ucm_get_event body;
	} command = { { RDMA_USER_CM_CMD_GET_EVENT, 8, sizeof *event }, { (uintptr_t)event } };
	long n = cm_write(fd, &command, sizeof command);
	EXPECT(n == -1 || n == sizeof command);
	return n == -1 ? errno : 0;
}

static inline int readable(int fd)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	return poll(&poller, 1, 0);
}
