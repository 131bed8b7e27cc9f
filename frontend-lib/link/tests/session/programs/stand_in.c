// Passes for librdmacm: its calls of the C library are those that are redirected.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int cm_open(const char *path, int flags) { return open(path, flags); }
int cm_openat(const char *path, int flags) { return openat(-1, path, flags); }
int cm_fstat(int fd, struct stat *st) { return fstat(fd, st); }
int cm_close(int fd) { return close(fd); }
long cm_write(int fd, const void *from, unsigned long len) { return write(fd, from, len); }
